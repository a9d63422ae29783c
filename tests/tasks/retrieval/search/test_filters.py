import pytest

from zoo.errors import UserError
from zoo.tasks.retrieval.search.filters import (
    DEEPEST,
    LONGEST,
    AllOf,
    AnyOf,
    Comparison,
    Membership,
    expression,
    holds,
    parse,
)

FIELDS = {"price": "number", "category": "text", "颜色": "text", "on sale": "boolean", "in": "number"}
CHEAP = Comparison("price", "<", 200.0)
RED = Comparison("颜色", "=", "红")


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("price < 200", CHEAP),
        ("price<2e2", CHEAP),
        ("price = -.5", Comparison("price", "=", -0.5)),
        ("颜色 == '红'", RED),
        ("颜色 != 'it''s \"red\" \\ %'", Comparison("颜色", "!=", 'it\'s "red" \\ %')),
        ('"on sale" = TRUE', Comparison("on sale", "=", True)),
        ('"in" in (1, 2)', Membership("in", (1.0, 2.0))),
        ("category not in ('连衣裙')", Membership("category", ("连衣裙",), negated=True)),
        ("price < 200 and 颜色 = '红' and \"in\" > 3", AllOf((CHEAP, RED, Comparison("in", ">", 3.0)))),
        ("price < 200 or 颜色 = '红' AND price < 200", AnyOf((CHEAP, AllOf((RED, CHEAP))))),
        ("(price < 200 or 颜色 = '红') and price < 200", AllOf((AnyOf((CHEAP, RED)), CHEAP))),
        ("not price >= 200", CHEAP),
        ("not not price < 200", CHEAP),
        ("not (price >= 200 or 颜色 != '红')", AllOf((CHEAP, RED))),
        ("not (price >= 200 and not 颜色 = '红')", AnyOf((CHEAP, RED))),
        ("not price in (1) or price < 200", AnyOf((Membership("price", (1.0,), negated=True), CHEAP))),
        ("not price not in (1)", Membership("price", (1.0,))),
        ("(" * DEEPEST + "price < 200" + ")" * DEEPEST, CHEAP),
    ],
)
def test_conditions_are_read(text, condition):
    assert parse(text, FIELDS) == condition


@pytest.mark.parametrize(
    ("text", "place", "value", "valid"),
    [
        ("", 1, "the end", "expected the name of a field"),
        ("pirce < 3", 1, "the unknown field pirce", "Did you mean price?"),
        ("price < 3 and color = 'a'", 15, "the unknown field color", "one of price, category, 颜色, on sale, in"),
        ("price < 'a'", 9, "'a'", "expected a number for price"),
        ("price < 1e999", 9, "1e999", "expected a number"),
        ("price < nan", 9, "nan", "expected a number"),
        ("price < 3x", 9, "3", "single quotes"),
        ("category = 3", 12, "3", "expected a text for category: 'a text in single quotes'"),
        ('category = "口红"', 12, '"口红"', "expected a text"),
        ("\"on sale\" = 'true'", 13, "'true'", "expected a boolean"),
        ('"on sale" < true', 11, "<", "expected = or !="),
        ("(price < 3", 11, "the end", "closing parenthesis for that of character 1"),
        ("price < 3)", 10, ")", "opening parenthesis"),
        ("price < 3 price < 4", 11, "price", "expected and, or, or the end"),
        ("price in ()", 11, ")", "expected a number"),
        ("price in (1, 2", 15, "the end", "expected )"),
        ("price not 3", 11, "3", "expected in"),
        ("3 < price", 1, "3", "expected the name of a field"),
        ("price < 3 ; drop table", 11, ";", "single quotes"),
        ("category = 'open", 12, "a quote that is not closed", "close it"),
        ("category = '\ud800'", 13, "half a character", "give valid UTF-8"),
        ("not " * (DEEPEST + 1) + "price < 3", 4 * DEEPEST + 1, "parentheses and nots", "write it flatter"),
    ],
)
def test_errors_point_at_the_place(text, place, value, valid):
    with pytest.raises(UserError) as caught:
        parse(text, FIELDS, argument="--where")
    assert caught.value.argument == "--where"
    assert value in caught.value.value
    assert valid in caught.value.valid
    assert f"at character {place} is" in str(caught.value)


def test_a_condition_may_be_as_long_as_said():
    start, more = "price < 1", " or price < 1"
    longest = start + more * ((LONGEST - len(start)) // len(more))
    assert len(parse(longest, FIELDS).parts) > 200
    with pytest.raises(UserError) as caught:
        parse(longest + more, FIELDS)
    assert (caught.value.argument, caught.value.valid) == ("where", "give at most 4,000")


@pytest.mark.parametrize("text", ["price = 1", "price != 1", "not price = 1", "price in (1)", "price not in (1)"])
@pytest.mark.parametrize("metadata", [{}, {"price": None}])
def test_a_product_without_a_value_meets_no_comparison(text, metadata):
    assert not holds(parse(text, FIELDS), metadata)


def test_a_negation_holds_where_the_condition_does_not():
    products = [{"price": price, "颜色": color} for price in (1.0, 200.0) for color in ("红", "蓝")]
    text = "price < 200 and 颜色 = '红' or 颜色 not in ('红', '绿') and price >= 200"
    held = [holds(parse(text, FIELDS), product) for product in products]
    assert held == [True, False, False, True]
    assert [holds(parse(f"not ({text})", FIELDS), product) for product in products] == [not one for one in held]


def test_an_expression_is_written_for_each_database():
    columns = {"price": "field_0", "颜色": "field_1"}
    condition = parse("(price < 200 or 颜色 not in ('红', 'a')) and price = 3", FIELDS)
    members = "(field_1 is not null and field_1 not in ('红', 'a'))"
    assert expression(condition, columns, repr) == f"((field_0 < 200.0 or {members}) and field_0 = 3.0)"
    members = "(field_1 is not null and field_1 not in ['红', 'a'])"
    milvus = expression(condition, columns, repr, equal="==", brackets="[]")
    assert milvus == f"((field_0 < 200.0 or {members}) and field_0 == 3.0)"
