import asyncio
import random
import re
import struct
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, quote_from_bytes

import pytest
from starlette.requests import Request
from toy_shop import COLOURS, ODD_IDS, ColourEncoder, encoded

from zoo.tasks.retrieval.search.server import uploads
from zoo.tasks.retrieval.search.server.batching import TEXTS_A_BATCH, TextBatcher
from zoo.tasks.retrieval.search.server.errors import RequestError
from zoo.tasks.retrieval.search.server.limits import ADDRESSES, Limits, Rate, _network
from zoo.tasks.retrieval.search.server.recent import Recent
from zoo.tasks.retrieval.search.server.uploads import read_upload


def error(response, status):
    assert response.status_code == status, response.text
    return response.json()["error"]


# --- uploads ---


def test_a_body_is_as_large_as_it_may_be_and_no_larger(make_client):
    client = make_client(upload_bytes=2000)
    image = encoded("red").ljust(2000, b"\0")  # what stands behind a JPEG's end is not read
    kind = {"content-type": "image/jpeg"}
    assert client.post("/search", content=image, headers=kind).status_code == 200
    assert error(client.post("/search", content=image + b"\0", headers=kind), 413)["argument"] == "image"
    assert error(client.post("/search", files={"image": image}), 413)["argument"] == "image"


@pytest.mark.parametrize("form", [False, True])
def test_a_body_of_untold_length_is_read_to_the_limit_alone(form):
    """Chunks without a length, for ever."""
    kind = b"multipart/form-data; boundary=a" if form else b"image/jpeg"
    begin = b'--a\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' if form else b""
    read = 0

    async def receive():
        nonlocal read
        chunk = begin + b"x" * 1000 if read == 0 else b"x" * 1000
        read += len(chunk)
        return {"type": "http.request", "body": chunk, "more_body": True}

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/search",
        "query_string": b"",
        "headers": [(b"content-type", kind)],
    }
    with pytest.raises(RequestError) as raised:
        asyncio.run(read_upload(Request(scope, receive), Limits(upload_bytes=10_000)))
    assert raised.value.response.status_code == 413
    assert read < 12_000


@pytest.mark.parametrize("form", [False, True])
def test_a_body_that_does_not_come_is_not_waited_for(form):
    async def receive():
        await asyncio.sleep(60)

    kind = b"multipart/form-data; boundary=a" if form else b"image/jpeg"
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/search",
        "query_string": b"",
        "headers": [(b"content-type", kind)],
    }
    start = time.monotonic()
    with pytest.raises(RequestError) as raised:
        asyncio.run(read_upload(Request(scope, receive), Limits(upload_seconds=0.05)))
    assert raised.value.response.status_code == 408
    assert time.monotonic() - start < 5


def png_of(width, height):
    """A PNG that says to have so many pixels, and whose data is zeros, well compressed."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes(10_000_000), 9)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(30_000, 30_000), (2_000_000_000, 2), (8000, 8000)])
def test_a_bomb_is_refused_by_its_header(make_client, size, monkeypatch):
    def decode(data):
        raise AssertionError("it was decoded")

    client = make_client()
    monkeypatch.setattr(uploads, "decode", decode)
    response = client.post("/search", content=png_of(*size), headers={"content-type": "image/png"})
    assert error(response, 400)["argument"] == "image"


def test_an_image_of_as_many_pixels_as_may_be_is_taken(make_client):
    client = make_client(pixels=48 * 32)
    kind = {"content-type": "image/png"}
    assert client.post("/search", content=encoded("red", "PNG"), headers=kind).status_code == 200
    assert error(client.post("/search", content=encoded("red", "PNG", (48, 33)), headers=kind), 400)


# --- how many requests, whose, and from where ---


def test_a_rate_is_of_one_address_and_comes_back():
    now = 0.0
    rate = Rate(2.0, clock=lambda: now)
    assert [rate.wait("a") for _ in range(6)] == [0.0] * 6  # three seconds' worth
    assert rate.wait("a") == pytest.approx(0.5)
    assert rate.wait("b") == 0.0
    now = 0.5
    assert rate.wait("a") == 0.0
    assert rate.wait("a", 2.0) == pytest.approx(1.0)
    now = 1000.0
    assert [rate.wait("a") == 0.0 for _ in range(7)] == [True] * 6 + [False]


def test_the_addresses_whose_rate_is_known_are_bounded():
    rate = Rate(1.0)
    for number in range(ADDRESSES + 50):
        rate.wait(str(number))
    assert len(rate._buckets) == ADDRESSES


@pytest.mark.parametrize(
    ("address", "network"),
    [("10.0.0.1", "10.0.0.1"), ("2001:db8::1", "2001:db8::/64"), ("fe80::1%eth0", "fe80::/64"), ("client", "client")],
)
def test_a_client_is_its_address_or_ipv6_network(address, network):
    assert _network({"client": (address, 1)}) == network
    assert _network({}) == ""


def test_too_many_searches_are_told_when_to_come_again(make_client):
    client = make_client(rate=2.0)
    answers = [client.get("/search?q=红") for _ in range(10)]
    assert [answer.status_code for answer in answers[:6]] == [200] * 6
    assert answers[-1].headers["retry-after"] == "1"
    assert "2 searches a second" in error(answers[-1], 429)["valid"]


def test_images_cost_less_than_searches(make_client):
    client = make_client(rate=2.0)
    assert [client.get("/images/1?size=160").status_code for _ in range(100)] == [200] * 100


def test_a_busy_server_says_so_and_serves_again(make_client):
    client = make_client(encoder=ColourEncoder(seconds=0.3), requests=3)
    with ThreadPoolExecutor(12) as pool:
        found = [each.status_code for each in pool.map(lambda n: client.get(f"/search?q=红{n}"), range(12))]
    assert set(found) == {200, 503}
    assert client.get("/search?q=红").status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:8000", 200),
        ("192.168.1.9:8000", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_hosts_that_are_not_this_one_are_refused(client, host, status):
    assert client.get("/health", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"), [("http://localhost", 200), ("http://evil.example", 403), ("null", 403), ("http://[", 403)]
)
def test_pages_of_other_sites_are_refused(client, origin, status):
    for method in ("GET", "POST"):
        response = client.request(method, "/search?q=红", headers={"origin": origin}, files={"image": b""})
        assert response.status_code == status


# --- what is kept ---


def test_a_cache_lets_go_of_what_was_used_longest_ago():
    recent = Recent[str, bytes](10, len)
    recent.put("a", b"1234")
    recent.put("b", b"1234")
    assert recent.get("a") == b"1234"
    recent.put("c", b"1234")
    assert [recent.get(key) for key in "abc"] == [b"1234", None, b"1234"]
    recent.put("a", b"123")
    recent.put("d", b"123")
    assert [recent.get(key) for key in "acd"] == [b"123", b"1234", b"123"]
    recent.put("e", b"12345678901")
    recent.put("a", b"12345678901")
    assert [recent.get(key) for key in "acde"] == [None, b"1234", b"123", None]
    assert recent._held == 7


# --- batches ---


def test_texts_of_many_threads_are_embedded_together_each_as_alone():
    encoder = ColourEncoder(seconds=0.02)
    batcher = TextBatcher(encoder.encode_texts)
    texts = [f"{colour} {number}" for number in range(20) for colour in COLOURS]
    with ThreadPoolExecutor(40) as pool:
        vectors = list(pool.map(lambda text: batcher([text])[0], texts))
    batcher.close()
    assert sum(map(len, encoder.batches)) == len(texts)
    assert len(encoder.batches) < len(texts) / 4
    assert max(map(len, encoder.batches)) <= TEXTS_A_BATCH
    alone = ColourEncoder()
    assert all((vector == alone.encode_texts([text])[0]).all() for text, vector in zip(texts, vectors, strict=True))


def test_a_text_that_fails_fails_alone():
    class Failing(ColourEncoder):
        def encode_texts(self, texts):
            if "坏" in texts:
                raise ValueError("坏")
            return super().encode_texts(texts)

    batcher = TextBatcher(Failing(seconds=0.02).encode_texts)

    def ask(text):
        try:
            return batcher([text]).shape
        except ValueError as error:
            return str(error)

    texts = ["红", "坏", "蓝", "绿", "黄1", "黄2", "黄3"]
    with ThreadPoolExecutor(len(texts)) as pool:
        found = list(pool.map(ask, texts))
    batcher.close()
    assert found == ["坏" if text == "坏" else (1, 8) for text in texts]


def test_a_text_that_was_embedded_is_not_embedded_again():
    encoder = ColourEncoder()
    batcher = TextBatcher(encoder.encode_texts)
    first = batcher(["红", "蓝"])
    assert (batcher(["蓝", "红"]) == first[::-1]).all()
    batcher.close()
    assert sorted(sum(encoder.batches, [])) == sorted(["红", "蓝"])


# --- a thousand malformed requests ---

WORDS = [
    "",
    "红",
    "a" * 400,
    "\x00",
    "\ud83d",
    "'\"\\;--",
    "%",
    "../",
    "..%2f",
    "/etc/passwd",
    "http://127.0.0.1/",
    "{}",
    "null",
]
WORDS += ["NaN", "-1", "1e999", "9" * 30, "价格 < 'x'", "((((", "not " * 30, "price in ()", "😀" * 200, *ODD_IDS]
PATHS = ["/search", "/items/", "/images/", "/fields", "/", "/../", "/images/..%2f..%2foutside.txt", "/style.css/"]
NAMES = ["q", "minus", "like", "where", "by", "k", "offset", "size", "image", "K", "", "\x00"]
METHODS = ["GET", "GET", "POST", "POST", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "BREW"]
KINDS = ["multipart/form-data; boundary=a", "image/png", "image/jpeg", "text/html", "", "multipart/form-data"]
PART = '--a\r\nContent-Disposition: form-data; name="{}"; filename="{}"\r\n'


def malformed(choose):
    """A request that no well-behaved client sends: method, address, arguments as of httpx."""

    def word():
        return "".join(choose.choices(WORDS, k=choose.randint(1, 3))).encode(errors="replace").decode()

    def raw(count):
        return choose.randbytes(choose.randrange(count))

    path = choose.choice(PATHS)
    if choose.random() < 0.6 and path != "/search":
        path += choose.choice([quote(word(), safe=""), quote(word()), quote_from_bytes(raw(20))])
    values = [quote(word()), quote_from_bytes(raw(12)), re.sub(r"[^!-~]|[#?&]", "", word()[:50])]
    query = "&".join(f"{quote(choose.choice(NAMES))}={choose.choice(values)}" for _ in range(choose.randrange(4)))
    method, options = choose.choice(METHODS), {}
    if method == "POST":
        part = PART.format(
            choose.choice(["image", "q", "k", "", "a\x00b"]), choose.choice(["", "a.jpg", "../a"])
        ).encode()
        bodies = [raw(300), encoded("red")[: choose.randrange(700)], part + b"\r\n" + raw(100) + b"\r\n--a--\r\n"]
        bodies += [part * 3 + raw(10), b"--a\r\n" + raw(80), b"", b"--a--", part.partition(b";")[0]]
        options = {"content": choose.choice(bodies), "headers": {"content-type": choose.choice(KINDS)}}
    return method, f"{path}?{query}", options


def test_malformed_requests_are_refused_and_never_fail_the_server(client):
    choose = random.Random(20)
    counted = Counter()
    for _ in range(1000):
        method, address, options = malformed(choose)
        response = client.request(method, address, **options)  # an error of the server itself is raised here
        assert response.status_code < 500, (method, address, options, response.text)
        assert b"secret" not in response.content
        if response.status_code >= 400 and method != "HEAD":
            assert response.json()["error"]["message"]
        counted[response.status_code] += 1
    assert sum(count for status, count in counted.items() if status >= 400) > 700, counted
    assert {400, 404, 405, 415} <= set(counted)
    assert client.get("/search?q=红").status_code == 200
