"""What every engine does alike; a real Milvus server is tested too where ``ZOO_MILVUS`` gives its address."""

import os
import random
import secrets
import string
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from zoo.errors import UserError
from zoo.tasks.retrieval.search.contracts import Description, Product
from zoo.tasks.retrieval.search.engines import create_engine, open_engine
from zoo.tasks.retrieval.search.filters import LONGEST, AllOf, AnyOf, Comparison, Membership, holds, parse

KINDS = ["lance", pytest.param("milvus", marks=pytest.mark.filterwarnings("ignore"))]
WIDTH = 16
COUNT = 150
FIELDS = {"类别": "text", "price": "number", "on sale": "boolean", "id": "text"}
ODD = [
    "",
    " ",
    "'",
    '"',
    "''",
    "\\",
    "\\'",
    '\\"',
    "a\\nb",
    "a\nb",
    "\r\n",
    "\t",
    "\x00",
    "\x1b[0m",
    "%",
    "_",
    "😀",
    "é",
]
ODD += ["e\u0301", "{x}", "$1", "`", "--", "' or 1=1 --", '" or 1==1 or "', "\u2028", "null", "true", "1", "長" * 3000]
CATEGORIES = ["连衣裙", "半身裙", "口红", *ODD]


def new_address(kind, folder):
    """An address where nothing is."""
    if kind == "lance":
        return str(folder / "shop.lance")
    server = os.environ.get("ZOO_MILVUS")
    return f"{server}/zoo_test_{secrets.token_hex(4)}" if server else str(folder / "shop.db")


def describe(**changes):
    return replace(Description("runs/a", "f1", WIDTH, "images", FIELDS), **changes)


def unit(rng, *shape):
    vectors = rng.normal(size=(*shape, WIDTH)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def make_products(count=COUNT, seed=0):
    rng, choose = np.random.default_rng(seed), random.Random(seed)
    vectors = unit(rng, count)
    products = []
    for i in range(count):
        metadata = {
            "类别": choose.choice([None, *CATEGORIES]),
            "price": choose.choice([None, i, -1.5, 1e20, 199.9]),
            "on sale": choose.choice([None, True, False]),
            "id": choose.choice(CATEGORIES),
        }
        if i % 7 == 0:
            del metadata["price"]
        products.append(Product(f"{i}{ODD[i % len(ODD)][:99]}", vectors[i], "", f"{i}.jpg", metadata, f"digest {i}"))
    return products


@pytest.fixture(scope="module")
def products():
    return make_products()


@pytest.fixture(scope="module", params=KINDS)
def shop(request, products, tmp_path_factory):
    """An engine that holds ``products`` and is not written to."""
    engine = create_engine(new_address(request.param, tmp_path_factory.mktemp("shop")), describe())
    engine.upsert(products)
    yield engine
    drop(engine)


@pytest.fixture(params=KINDS)
def engine(request, tmp_path):
    """An empty engine."""
    engine = create_engine(new_address(request.param, tmp_path), describe())
    yield engine
    drop(engine)


def drop(engine):
    if hasattr(engine, "client"):
        engine.client.drop_collection(engine.collection)
        engine.client.close()


def ids(found):
    return [one.id for one in found]


def titled(*titles):
    rng = np.random.default_rng(3)
    return [Product(f"p{i}", unit(rng), title, "", {}, "") for i, title in enumerate(titles)]


def random_condition(choose, depth=3):
    if depth and choose.random() < 0.6:
        parts = tuple(random_condition(choose, depth - 1) for _ in range(choose.randint(2, 3)))
        return choose.choice([AllOf, AnyOf])(parts)
    field = choose.choice(list(FIELDS))
    values = {
        "text": CATEGORIES,
        "number": [-1.5, 0.0, 40.0, 199.9, 1e20, 1e-7],
        "boolean": [True, False],
    }[FIELDS[field]]
    if choose.random() < 0.4:
        chosen = tuple(choose.sample(values, choose.randint(1, min(5, len(values)))))
        return Membership(field, chosen, negated=choose.random() < 0.5)
    operators = ["=", "!="] if field == "on sale" else ["=", "!=", "<", "<=", ">", ">="]
    return Comparison(field, choose.choice(operators), choose.choice(values))


def test_conditions_hold_in_the_engine_as_they_do_here(shop, products):
    choose = random.Random(1)
    for _ in range(80):
        condition = random_condition(choose)
        wanted = {product.id for product in products if holds(condition, product.metadata)}
        assert shop.count(condition) == len(wanted), condition
        if wanted:
            assert set(ids(shop.search(vector=products[0].vector, where=condition, k=COUNT))) == wanted, condition


@pytest.mark.parametrize("value", ODD)
def test_an_odd_text_is_a_text_in_a_condition(shop, products, value):
    wanted = {product.id for product in products if product.metadata["id"] == value}
    for condition in (Comparison("id", "=", value), Membership("id", (value,))):
        assert shop.count(condition) == len(wanted)
    quoted = value.replace("'", "''")
    assert shop.count(parse(f"id = '{quoted}'", FIELDS)) == len(wanted)


def test_the_longest_condition_is_answered(shop):
    start, more = "price < 0", " or price < 0"
    text = start + more * ((LONGEST - len(start)) // len(more))
    assert shop.count(parse(text, FIELDS)) == shop.count(parse(start, FIELDS)) > 0
    nested = "(price < 0 or " * 15 + "price < 0" + ")" * 15
    assert shop.count(parse(nested, FIELDS)) == shop.count(parse(start, FIELDS))


def test_a_vector_finds_the_nearest_by_cosine(shop, products):
    queries = unit(np.random.default_rng(9), 3)
    vectors = np.stack([product.vector for product in products])
    for query in queries:
        order = np.argsort(-(vectors @ query), kind="stable")[:20]
        found = shop.search(vector=query, k=20)
        assert ids(found) == [products[i].id for i in order]
        np.testing.assert_allclose([one.score for one in found], vectors[order] @ query, atol=1e-5)


def test_what_is_found_is_what_was_written(shop, products):
    for product in products[:: COUNT // 10]:
        found = shop.search(vector=product.vector, k=1)[0]
        assert found.score == pytest.approx(1, abs=1e-5)
        assert found._replace(score=0.0) == shop.get([product.id])[product.id]
        assert (found.id, found.title, found.image) == (product.id, product.title, product.image)
        assert found.metadata == {name: product.metadata.get(name) for name in FIELDS}


def test_products_are_given_by_id(shop, products):
    asked = [product.id for product in products] + ["nobody", "' or 1=1 --"]
    found = shop.get(asked)
    assert set(found) == set(asked[:COUNT])
    assert all(key == one.id and one.score == 0 for key, one in found.items())
    vectors = shop.vectors(asked)
    assert set(vectors) == set(asked[:COUNT])
    for product in products:
        np.testing.assert_array_equal(vectors[product.id], product.vector)
    assert shop.get([]) == shop.vectors([]) == {}


def test_digests_are_given_of_all(shop, products):
    assert sorted(shop.digests()) == sorted((product.id, product.digest) for product in products)


def test_values_are_counted(shop, products):
    counted = shop.values("类别")
    known = [product.metadata["类别"] for product in products if product.metadata["类别"] is not None]
    assert dict(counted) == {value: known.count(value) for value in known}
    assert counted == sorted(counted, key=lambda pair: (-pair[1], pair[0]))
    assert shop.values("类别", limit=2) == counted[:2]


def test_no_more_are_found_than_there_are(shop, products):
    assert len(shop.search(vector=products[0].vector, k=10_000)) == COUNT == shop.count()


def test_an_empty_index_answers(engine):
    assert engine.search(vector=unit(np.random.default_rng(0))) == engine.search(text="红") == []
    assert engine.count() == engine.count(Comparison("price", "<", 1.0)) == 0
    assert engine.get(["a"]) == engine.vectors(["a"]) == {}
    assert engine.values("类别") == list(engine.digests()) == []
    engine.upsert([])
    engine.delete([])
    engine.delete(["a"])
    engine.optimize()
    assert engine.count() == 0


def test_products_are_replaced_and_deleted(engine):
    first, second, third = make_products(3)
    engine.upsert([first, second])
    turned = replace(second, vector=-second.vector, title="新", metadata={"price": 3}, digest="new")
    engine.upsert([third, second, turned])  # of those of one id the last stays
    assert engine.count() == 3
    assert dict(engine.digests()) == {first.id: first.digest, second.id: "new", third.id: third.digest}
    found = engine.search(vector=-second.vector, k=1)[0]
    assert (found.id, found.title) == (second.id, "新")
    assert found.metadata == {name: None for name in FIELDS} | {"price": 3}
    assert ids(engine.search(text="新")) == [second.id]
    engine.optimize()
    engine.delete([first.id, second.id, "nobody"])
    assert ids(engine.search(vector=first.vector)) == [third.id]
    assert engine.search(text="新") == []
    engine.upsert([first])
    engine.optimize()
    assert engine.search(vector=first.vector)[0].id == first.id
    assert engine.count() == 2


def test_text_finds_words_and_ranks_more_of_them_first(engine):
    engine.upsert(titled("红色连衣裙", "蓝色连衣裙", "红色口红", "皮鞋", "", "iPhone 手机壳"))
    for _ in range(2):
        found = engine.search(text="红色 连衣裙")
        assert found[0].id == "p0"
        assert set(ids(found)) == {"p0", "p1", "p2"}
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
        assert found[-1].score > 0
        assert ids(engine.search(text="红色 连衣裙", k=1)) == ["p0"]
        assert ids(engine.search(text="iphone手机")) == ["p5"]
        assert engine.search(text="电脑") == engine.search(text="") == engine.search(text="'\"\\ :*^~(") == []
        engine.optimize()


def test_text_and_a_condition_find_what_meets_both(engine):
    red, blue = titled("红色连衣裙", "蓝色连衣裙")
    engine.upsert([replace(red, metadata={"price": 300}), replace(blue, metadata={"price": 100})])
    assert ids(engine.search(text="连衣裙", where=Comparison("price", "<", 200.0))) == ["p1"]


def test_what_was_written_is_seen_by_another_handle(engine):
    other = open_engine(engine.address)
    assert other.count() == 0
    first, second = make_products(2)
    for product in (first, second):
        engine.upsert([product])
        assert other.search(vector=product.vector, k=1)[0].id == product.id
    engine.delete([first.id])
    assert ids(other.search(vector=first.vector)) == [second.id]
    assert other.count() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_index_is_opened_in_another_process(kind, tmp_path):
    address = new_address(kind, tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[2]); import test_engines as t\n"
        "t.create_engine(sys.argv[1], t.describe()).upsert(t.make_products(3))"
    )
    subprocess.run([sys.executable, "-c", code, address, os.path.dirname(__file__)], check=True)
    engine = open_engine(address)
    assert engine.description == describe()
    assert {id for id, _ in engine.digests()} == {product.id for product in make_products(3)}
    drop(engine)


def test_an_index_of_another_description_is_refused(engine):
    address = engine.address
    fewer = describe(model="runs/moved", images="moved", fields={"price": "number"})
    moved = describe(model="runs/moved", images="moved")
    assert create_engine(address, fewer).description == moved == open_engine(address).description
    for name, value in {"fingerprint": "f2", "width": 8, "title_weight": 0.5}.items():
        with pytest.raises(UserError) as caught:
            create_engine(address, describe(**{name: value}))
        assert (caught.value.argument, caught.value.value) == (name, value)
        assert caught.value.valid == getattr(engine.description, name)
    for name, kind in {"brand": "text", "price": "text"}.items():
        with pytest.raises(UserError) as caught:
            create_engine(address, describe(fields=FIELDS | {name: kind}))
        assert (caught.value.argument, caught.value.value, caught.value.valid) == (f"fields.{name}", kind, FIELDS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_index_is_opened_where_there_is_none(kind, tmp_path):
    address = new_address(kind, tmp_path)
    with pytest.raises(UserError) as caught:
        open_engine(address)
    assert (caught.value.argument, caught.value.value) == ("engine", address)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["s3://shop", "http://", "http://localhost:19530/a-b", "ftp://host/shop.db"])
def test_an_address_that_no_engine_has_is_refused(address):
    with pytest.raises(UserError) as caught:
        open_engine(address)
    assert (caught.value.argument, caught.value.value) == ("engine", address)


@pytest.mark.parametrize(("address", "library"), [("shop.lance", "lancedb"), ("http://localhost", "pymilvus")])
def test_a_library_that_is_not_there_is_named(address, library, monkeypatch):
    for module in ("zoo.tasks.retrieval.search.lance", "zoo.tasks.retrieval.search.milvus"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=rf"^{library} is not installed.*pip install 'muge-zoo\[search\]'") as caught:
        open_engine(address)
    assert (caught.value.argument, caught.value.value) == ("engine", address)


def test_no_database_is_imported_before_it_is_used():
    code = (
        "import sys, zoo.tasks.retrieval.search.engines\n"
        "sys.exit(bool({'lancedb', 'pyarrow', 'pymilvus', 'torch'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("changes", "argument"),
    [
        ({"id": ""}, "id"),
        ({"id": "長" * 171}, "id"),
        ({"id": "\ud800"}, "id"),
        ({"title": "x" * 65_536}, "title of 'a'"),
        ({"vector": np.ones(WIDTH, np.float32)}, "vector of 'a'"),
        ({"vector": np.full(WIDTH, np.nan, np.float32)}, "vector of 'a'"),
        ({"vector": np.eye(8, dtype=np.float32)[0]}, "vector of 'a'"),
        ({"metadata": {"brand": "x"}}, "brand of 'a'"),
        ({"metadata": {"price": "3"}}, "price of 'a'"),
        ({"metadata": {"price": True}}, "price of 'a'"),
        ({"metadata": {"price": float("nan")}}, "price of 'a'"),
        ({"metadata": {"price": 10**400}}, "price of 'a'"),
        ({"metadata": {"类别": 3.0}}, "类别 of 'a'"),
        ({"metadata": {"on sale": 1}}, "on sale of 'a'"),
    ],
)
def test_a_product_that_cannot_be_kept_is_refused_with_all_beside_it(shop, changes, argument):
    good = Product("a", np.eye(WIDTH, dtype=np.float32)[0], "", "", {}, "")
    with pytest.raises(UserError) as caught:
        shop.upsert([replace(good, id="good"), replace(good, **changes)])
    assert caught.value.argument == argument
    assert shop.count() == COUNT


def test_random_texts_are_kept_as_they_are(engine):
    choose = random.Random(4)
    alphabet = "'\"\\%_`{}$;-\n\r\t\x00\x07红😀" + string.ascii_letters[:4]
    texts = {"".join(choose.choices(alphabet, k=choose.randint(1, 12))) for _ in range(60)}
    vectors = unit(np.random.default_rng(0), len(texts))
    engine.upsert(
        [Product(text, vector, text, text, {"类别": text}, text) for text, vector in zip(texts, vectors, strict=True)]
    )
    assert set(engine.get(list(texts))) == {id for id, _ in engine.digests()} == texts
    for text in list(texts)[:20]:
        assert engine.search(vector=vectors[0], where=Comparison("类别", "=", text))[0].title == text
    gone = list(texts)[::2]
    engine.delete(gone)
    assert {id for id, _ in engine.digests()} == texts - set(gone)
