import re
import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from toy_shop import COLOURS, HOSTILE, ODD_IDS, encoded

from zoo.errors import UserError
from zoo.tasks.retrieval.search.engines import create_engine, open_engine
from zoo.tasks.retrieval.search.server import app


def ids(response):
    assert response.status_code == 200, response.text
    return [result["id"] for result in response.json()["results"]]


def colours(response):
    return [result["metadata"].get("颜色") for result in response.json()["results"]]


def error(response, status):
    assert response.status_code == status, response.text
    found = response.json()["error"]
    assert set(found) == {"argument", "value", "valid", "message"}
    assert found["message"]
    return found


# --- searching ---


def test_a_text_finds_what_it_names_the_best_first(client):
    response = client.get("/search", params={"q": "红色连衣裙", "k": 12})
    assert colours(response)[:10] == ["红色"] * 10
    answer = response.json()
    scores = [result["score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["more"]
    assert answer["milliseconds"] > 0


def test_pages_are_the_parts_of_one_long_answer(client):
    whole = ids(client.get("/search", params={"q": "蓝", "k": 40}))
    parts = [ids(client.get("/search", params={"q": "蓝", "k": 10, "offset": offset})) for offset in (0, 10, 20, 30)]
    assert sum(parts, []) == whole
    assert len(set(whole)) == 40
    last = client.get("/search", params={"q": "蓝", "k": 100, "offset": 40}).json()
    assert not last["more"]
    assert len(last["results"]) == 40 + len(ODD_IDS) + 7 - 40


def test_filters_hold_of_all_results(client):
    where = "价格 < 100 and 颜色 in ('红色', '绿色') and 新品 = false"
    response = client.get("/search", params={"q": "红", "where": where})
    assert sorted(ids(response)) == ["8", "9"]


def test_like_finds_others_like_a_product(client):
    response = client.get("/search", params={"like": "5", "k": 9})
    assert "5" not in ids(response)
    assert colours(response) == ["绿色"] * 9
    assert colours(client.get("/search", params={"like": "5", "where": "颜色 = '黄色'"}))[:10] == ["黄色"] * 10


def test_minus_turns_away_from_a_text(client):
    both = colours(client.get("/search", params={"q": "红蓝", "k": 20}))
    assert set(both) == {"红色", "蓝色"}
    assert colours(client.get("/search", params={"q": "红蓝", "minus": "红", "k": 10})) == ["蓝色"] * 10


@pytest.mark.parametrize("by", ["text", "hybrid"])
def test_words_of_titles_are_searched(client, by):
    assert "特别" in client.get("/search", params={"q": "特别", "by": by, "k": 3}).json()["results"][0]["title"]


def test_an_image_finds_what_looks_like_it_as_a_form_or_alone(client):
    image = encoded(COLOURS["黄"])
    form = client.post("/search", files={"image": ("a.jpg", image, "image/jpeg")}, data={"k": "10"})
    assert colours(form) == ["黄色"] * 10
    alone = client.post("/search", params={"k": 10}, content=image, headers={"content-type": "image/png"})
    assert ids(alone) == ids(form)
    with_text = client.post("/search", files={"image": image}, data={"q": "红", "k": "20"})
    assert set(colours(with_text)) == {"黄色", "红色"}
    without = client.post("/search", files={"image": b""}, data={"q": "红", "k": "10"})
    assert colours(without) == ["红色"] * 10


# --- products ---


def test_a_product_has_its_metadata(client):
    item = client.get("/items/9").json()
    assert item == {
        "id": "9",
        "title": "绿色连衣裙 第9款",
        "image": "/images/9",
        "metadata": {"颜色": "绿色", "品牌": "甲", "价格": 90.0, "新品": False},
    }
    assert client.get("/items/hostile").json()["title"] == HOSTILE


@pytest.mark.parametrize("id", ODD_IDS)
def test_ids_of_any_kind_lead_to_their_product(client, id):
    item = client.get(f"/items/{quote(id, safe='')}").json()
    assert item["id"] == id
    assert client.get(item["image"]).status_code == 200
    assert ids(client.get("/search", params={"like": id, "k": 1})) != [id]


def test_images_are_jpeg_in_the_size_asked_for(client):
    for id in ("4", "5"):  # a PNG and a JPEG
        whole = client.get(f"/images/{id}")
        assert whole.headers["content-type"] == "image/jpeg"
        assert Image.open(BytesIO(whole.content)).size == (400, 300)
        for size, wanted in ((320, (320, 240)), (161, (320, 240)), (100, (160, 120)), (640, (400, 300))):
            image = Image.open(BytesIO(client.get(f"/images/{id}?size={size}").content))
            assert (image.format, image.size) == ("JPEG", wanted)
    pixels = np.array(image)
    assert np.abs(pixels.mean(axis=(0, 1)) - COLOURS["绿"]).max() < 4


def test_browsers_keep_images_and_ask_whether_they_changed(client):
    first = client.get("/images/1?size=160")
    assert "max-age" in first.headers["cache-control"]
    same = client.get("/images/1?size=160", headers={"if-none-match": first.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    assert client.get("/images/1?size=320").headers["etag"] != first.headers["etag"]


def test_an_image_that_changed_is_shown_anew(client, toy_index):
    file = Path(toy_index).parent / "images" / "3.jpg"
    before = file.read_bytes()
    first = client.get("/images/3?size=160")
    try:
        file.write_bytes(encoded("black", size=(300, 300)))
        second = client.get("/images/3?size=160")
    finally:
        file.write_bytes(before)
    assert second.headers["etag"] != first.headers["etag"]
    assert Image.open(BytesIO(second.content)).size == (160, 160)


@pytest.mark.parametrize(
    "image", ["../outside.jpg", "../outside.txt", "/outside.jpg", "gone.jpg", "text.png", "x.tsv#../1"]
)
def test_no_file_outside_the_folder_of_images_is_served(client, image):
    for path in ("", "?size=160"):
        found = error(client.get(f"/images/{quote(f'image:{image}', safe='')}{path}"), 404)
        assert (found["argument"], found["value"]) == ("id", f"image:{image}")


# --- the rest ---


def test_fields_are_what_filters_can_say(client):
    answer = client.get("/fields").json()
    assert answer["products"] == 40 + len(ODD_IDS) + 7
    fields = {field["name"]: field for field in answer["fields"]}
    assert {name: field["kind"] for name, field in fields.items()} == {
        "颜色": "text",
        "品牌": "text",
        "价格": "number",
        "新品": "boolean",
    }
    counts = {value["value"]: value["count"] for value in fields["颜色"]["values"]}
    assert counts == {**{f"{colour}色": 10 for colour in COLOURS}, "其他": len(ODD_IDS), "<b>其他</b>": 1}
    assert fields["价格"]["values"] == []


def test_health_tells_products_and_model(client):
    assert client.get("/health").json() == {
        "status": "ok",
        "products": 40 + len(ODD_IDS) + 7,
        "fingerprint": "0123456789abcdef",
    }


def test_the_page_and_all_that_it_names_are_there(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    names = re.findall(r'(?:href|src)="([\w.]+)"', page.text)
    assert {"style.css", "app.js", "icon.svg"} <= set(names)
    scripts = {name for name in names if name.endswith(".js")}
    while scripts:
        text = client.get(f"/{scripts.pop()}").text
        inner = re.findall(r'from "\./([\w.]+)"', text)
        names += inner
        scripts |= set(inner) - set(names[: -len(inner) or None])
    for name in names:
        response = client.get(f"/{name}")
        assert response.status_code == 200
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|innerHTML|eval\(", response.text), name
        again = client.get(f"/{name}", headers={"if-none-match": response.headers["etag"]})
        assert again.status_code == 304


def test_openapi_describes_it_and_no_page_loads_scripts_of_others(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/search", "/items/{id}", "/images/{id}", "/fields", "/health"}
    assert "4XX" in paths["/search"]["get"]["responses"]
    assert "image" in paths["/search"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"]
    for path in ("/docs", "/redoc"):
        error(client.get(path), 404)


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/search?k=x", 400), ("/images/1", 200), ("/nothing", 404)])
def test_headers_protect_browsers(client, path, status):
    response = client.get(path)
    assert response.status_code == status
    assert response.headers["content-security-policy"].startswith("default-src 'self'")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in response.headers
    assert "server" not in response.headers


# --- errors ---


@pytest.mark.parametrize(
    ("query", "argument"),
    [
        ("k=3", "query"),
        ("q=", "query"),
        ("q=%20", "query"),
        ("minus=a", "query"),
        ("like=1&by=text", "by"),
        ("q=a&like=1&by=text", "by"),
        ("q=a&minus=b&by=text", "by"),
        ("q=a&k=0", "k"),
        ("q=a&k=201", "k"),
        ("q=a&k=ten", "k"),
        ("q=a&k=1e99", "k"),
        ("q=a&offset=-1", "offset"),
        ("q=a&offset=190&k=20", "offset"),
        ("q=a&by=magic", "by"),
        ("q=a&K=3", "K"),
        (f"q={'a' * 301}", "q"),
        ("q=a&where=price<3", "where"),
        ("q=a&where=价格='a'", "where"),
        ("q=a&where=(((", "where"),
        (f"q=a&where={'(' * 1999}", "where"),
        (f"q=a&where={'a' * 4001}", "where"),
        ("q=a&where=价格<1;drop table products", "where"),
        (f"q=a&like={'a' * 513}", "like"),
    ],
)
def test_a_wrong_argument_is_named(client, query, argument):
    assert error(client.get(f"/search?{query}"), 400)["argument"] == argument


@pytest.mark.parametrize("path", ["/search?like=nobody", "/items/nobody", f"/items/{'a' * 600}", "/images/nobody"])
def test_an_unknown_product_is_not_found(client, path):
    assert error(client.get(path), 404)["argument"] in ("id", "like")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("DELETE", "/search", 405),
        ("PUT", "/items/1", 405),
        ("POST", "/items/1", 405),
        ("GET", "/items/", 404),
        ("GET", "/images/", 404),
        ("GET", "/images/1?size=0", 400),
        ("GET", "/images/1?size=100000", 400),
        ("GET", "/server/app.py", 404),
        ("GET", "/app.py", 404),
        ("GET", "/..%2f..%2fapp.py", 404),
        ("GET", "/page%2findex.html", 404),
    ],
)
def test_what_is_not_there_is_refused(client, method, path, status):
    error(client.request(method, path), status)


@pytest.mark.parametrize(
    ("kind", "body", "status", "argument"),
    [
        ("application/json", b"{}", 415, "Content-Type"),
        ("", b"", 415, "Content-Type"),
        ("multipart/form-data", b"x", 400, "Content-Type"),
        ("multipart/form-data; boundary=a", b"no form", 400, "Content-Type"),
        (
            "multipart/form-data; boundary=a",
            b"--a\r\nContent-Disposition: form-data\r\n\r\nx\r\n--a--",
            400,
            "Content-Type",
        ),
        ("image/png", b"no image", 400, "image"),
        ("image/png", b"", 400, "query"),
        ("image/svg+xml", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://a/"/></svg>', 400, "image"),
        ("image/jpeg", encoded("red")[:200], 400, "image"),
    ],
)
def test_a_body_that_is_no_image_or_form_is_refused(client, kind, body, status, argument):
    response = client.post("/search", content=body, headers={"content-type": kind} if kind else {})
    assert error(response, status)["argument"] == argument


@pytest.mark.parametrize(
    ("files", "data", "argument"),
    [
        ({"picture": encoded("red")}, {}, "picture"),
        ({"image": encoded("red")}, {"k": "x"}, "k"),
        ({"image": encoded("red")}, {"url": "http://127.0.0.1/"}, "url"),
        ({"a": (None, "1")}, {"image": "http://127.0.0.1/a.jpg"}, "image"),
        ({"image": encoded("red")}, {"q": ["a", "b"]}, "q"),
        ([("image", encoded("red")), ("image", encoded("red"))], {}, "Content-Type"),
        ({"image": encoded("red")}, {f"f{number}": "" for number in range(20)}, "Content-Type"),
    ],
)
def test_a_form_with_other_fields_is_refused(client, files, data, argument):
    assert error(client.post("/search", files=files, data=data), 400)["argument"] == argument


class Counting:
    """An engine that counts how often products are asked for."""

    def __init__(self, engine):
        self.engine, self.asked = engine, []

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def get(self, ids):
        self.asked += ids
        return self.engine.get(ids)


def test_images_of_what_was_just_found_need_no_look_into_the_index_for_a_minute(make_client, toy_index, monkeypatch):
    engine = Counting(open_engine(toy_index))
    client = make_client(engine=engine)
    for result in client.get("/search?q=红&k=5").json()["results"]:
        assert client.get(f"{result['image']}?size=160").status_code == 200
    assert not engine.asked
    monkeypatch.setattr(app, "FRESH_SECONDS", -1.0)
    assert client.get(result["image"]).status_code == 200
    assert engine.asked == [result["id"]]


class Failing:
    """An engine that fails when products are asked for."""

    def __init__(self, engine, error):
        self.engine, self.error = engine, error

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def get(self, ids):
        raise self.error


def test_an_index_that_was_made_anew_by_another_model_is_not_searched(make_client, toy_index, tmp_path, monkeypatch):
    address = str(tmp_path / "copy.lance")
    shutil.copytree(toy_index, address)
    client = make_client(engine=open_engine(address))
    assert client.get("/health").status_code == 200
    description = open_engine(address).description
    shutil.rmtree(address)
    create_engine(address, replace(description, fingerprint="another"))
    monkeypatch.setattr(app, "FRESH_SECONDS", -1.0)
    for path in ("/search?q=a", "/health"):
        assert "started again" in error(client.get(path), 503)["message"]


@pytest.mark.parametrize(
    ("raised", "status"),
    [(RuntimeError("/a/secret/path"), 500), (UserError("/a/secret/path: gone", argument="engine"), 503)],
)
def test_an_error_that_is_not_the_clients_tells_nothing_of_the_server(make_client, toy_index, raised, status):
    client = make_client(engine=Failing(open_engine(toy_index), raised), raise_errors=False)
    assert "secret" not in str(error(client.get("/items/1"), status))
