"""The page, in a real browser."""

import contextlib
import re
import socket
import threading
from urllib.parse import parse_qs, urlsplit

import pytest
import toy_shop
import uvicorn
from playwright.sync_api import expect, sync_playwright
from toy_shop import COLOURS, encoded

from zoo.tasks.retrieval.search.engines import open_engine
from zoo.tasks.retrieval.search.images import ProductImages
from zoo.tasks.retrieval.search.server.app import create_app
from zoo.tasks.retrieval.search.server.limits import Limits

pytestmark = pytest.mark.browser
CHROMIUM = "/usr/bin/chromium"


@pytest.fixture(scope="module")
def address(toy_index):
    engine = open_engine(toy_index)
    images = ProductImages(engine.description.images)
    app = create_app(engine, toy_shop.ColourEncoder(), images, Limits(rate=1e6))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address):
    """Opens the page; its scripts must raise no error, and it may load nothing from elsewhere."""
    errors, foreign = [], []
    with contextlib.ExitStack() as stack:

        def open_page(query="", *, width=1280, height=860, locale="zh-CN"):
            context = browser.new_context(viewport={"width": width, "height": height}, locale=locale)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(10_000)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on("request", lambda request: foreign.append(request.url))
            page.goto(address + query)
            page.wait_for_load_state("networkidle")
            return page

        yield open_page
    assert not errors
    assert all(url.startswith((address, "data:", "blob:")) for url in foreign)


def titles(page):
    page.wait_for_selector("#results[aria-busy=false]", state="attached")
    return page.locator("#results strong").all_inner_texts()


def given(page):
    return {name: values for name, values in parse_qs(urlsplit(page.url).query).items()}


def fits(page):
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def drop(page, data, name, kind):
    """Drop a file on the page, as a user does from a folder."""
    transfer = page.evaluate_handle(
        """([bytes, name, type]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
            return transfer;
        }""",
        [list(data), name, kind],
    )
    page.dispatch_event("body", "dragover", {"dataTransfer": transfer})
    assert page.locator("#drop").is_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})


def test_typing_shows_relevant_products_first_and_more_when_asked(open_page):
    page = open_page()
    page.keyboard.type("红色连衣裙")
    page.keyboard.press("Enter")
    page.wait_for_selector("a.card")
    assert all("红色" in title for title in titles(page)[:10])
    assert len(titles(page)) == 24
    assert given(page) == {"q": ["红色连衣裙"]}
    page.locator("#more").click()
    expect(page.locator("a.card")).to_have_count(48)
    assert len(set(titles(page))) > 40
    page.locator("a.card").first.click()
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="hidden")
    assert len(titles(page)) == 48
    images = page.locator("#results img").first
    assert images.evaluate("image => image.complete && image.naturalWidth > 0")


def test_filters_narrow_the_results_and_are_removed(open_page):
    page = open_page("?q=红")
    page.locator("aside details", has_text="品牌").locator("label", has_text="甲").click()
    page.wait_for_url("**f.*")
    page.locator("aside details", has_text="价格").locator("input").last.fill("100")
    page.keyboard.press("Enter")
    expect(page.locator("a.card")).to_have_count(4)
    assert {re.search(r"第(\d+)款", title)[1] for title in titles(page)} == {"0", "3", "6", "9"}
    assert given(page) == {"q": ["红"], "f.品牌": ["甲"], "f.价格": ["100"]}
    page.locator("aside select").select_option("false")
    expect(page.locator("a.card")).to_have_count(1)
    page.reload()
    assert [title.count("第9款") for title in titles(page)] == [1]
    page.locator("aside .head button").click()
    expect(page.locator("a.card")).to_have_count(24)
    assert given(page) == {"q": ["红"]}


def test_a_dropped_image_is_searched_by_and_survives_the_back_button(open_page):
    page = open_page()
    drop(page, encoded(COLOURS["黄"], size=(900, 700)), "a.jpg", "image/jpeg")
    page.wait_for_selector("a.card")
    assert all("黄色" in title for title in titles(page)[:10])
    page.locator("#q").fill("红")
    page.keyboard.press("Enter")
    page.wait_for_url("**?q=*")
    found = titles(page)[:20]
    assert {title[:2] for title in found} == {"黄色", "红色"}
    page.go_back()
    expect(page.locator("#q")).to_have_value("")
    expect(page.locator("#results strong").nth(9)).to_contain_text("黄色")
    page.locator("#chip-remove").click()
    page.wait_for_selector("#start:visible")


def test_a_chosen_file_that_is_no_image_is_said_in_words(open_page):
    page = open_page()
    page.locator("#file").set_input_files({"name": "a.jpg", "mimeType": "image/jpeg", "buffer": b"no image"})
    page.wait_for_selector("#message:visible")
    assert "不是可以读取的图片" in page.locator("#message").inner_text()
    page.get_by_role("button", name="重新开始").click()
    page.wait_for_selector("#start:visible")


def test_more_like_this_finds_its_like_and_the_way_back(open_page):
    page = open_page("?q=蓝")
    first = page.locator("#results li").first
    first.hover()
    first.get_by_role("button").click()
    page.wait_for_url("**?like=*")
    page.wait_for_selector("#chip:visible")
    assert all("蓝色" in title for title in titles(page)[:9])
    page.go_back()
    expect(page.locator("#q")).to_have_value("蓝")
    assert page.locator("#chip").is_hidden()


def test_fields_may_be_called_as_what_objects_have_by_themselves(open_page):
    page = open_page("?q=红&constructor=a&f.constructor=b&f.__proto__=c&f.toString=d")
    expect(page.locator("a.card")).to_have_count(24)
    assert page.locator("#filter-count").inner_text() == "3"


def test_nothing_found_offers_a_way_out(open_page):
    page = open_page("?q=红色&by=text&f.价格=99999&f.价格=")
    assert "没有找到" in page.locator("#message").inner_text()
    page.get_by_role("button", name="清除筛选").last.click()
    page.wait_for_selector("a.card")
    assert page.locator("#message").is_hidden()


def test_a_product_is_shown_by_itself_and_closed(open_page):
    page = open_page("?q=绿")
    page.locator("a.card").first.click()
    page.wait_for_selector("dialog[open]")
    assert "绿色" in page.locator("#item-title").inner_text()
    assert "item" in given(page)
    shared = page.url
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="hidden")
    assert given(page) == {"q": ["绿"]}
    other = open_page("?" + urlsplit(shared).query)
    other.wait_for_selector("dialog[open]")
    other.locator("#item-close").click()
    other.wait_for_selector("dialog[open]", state="hidden")
    assert len(titles(other)) == 24


def test_the_keyboard_alone_is_enough(open_page):
    page = open_page("?q=红", height=2000)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    widths = "getComputedStyle(document.querySelector('#results')).gridTemplateColumns"
    columns = len(page.evaluate(widths).split())
    place = "[...document.querySelectorAll('a.card')].indexOf(document.activeElement)"
    assert page.evaluate(place) == columns + 1
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="hidden")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.id") == "q"


def test_it_speaks_chinese_and_english(open_page):
    page = open_page("?q=红&f.品牌=甲")
    assert page.title() == "商品搜索"
    page.locator("#language").click()
    page.wait_for_url("**lang=en**")
    page.wait_for_selector("a.card")
    assert page.title() == "Product search"
    assert page.evaluate("document.documentElement.lang") == "en"
    assert given(page) == {"q": ["红"], "f.品牌": ["甲"], "lang": ["en"]}
    assert open_page(locale="en-GB").title() == "Product search"
    assert open_page("?lang=zh", locale="en-GB").title() == "商品搜索"


def test_a_hostile_title_is_text(open_page):
    page = open_page("?q=黑&by=text")
    assert titles(page) == [toy_shop.HOSTILE]
    page.locator("a.card").first.click()
    page.wait_for_selector("dialog[open]")
    assert page.locator("#item-title").inner_text() == toy_shop.HOSTILE
    assert "<b>其他</b>" in page.locator("#item-fields").inner_text()
    page.keyboard.press("Escape")
    assert "<b>其他</b>" in page.locator("#filters").inner_text()
    assert page.evaluate("window.hacked") is None


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("query", ["", "?q=红", "?q=红&item=1", "?q=红&f.价格=99999&f.价格=", "?like=nobody"])
def test_nothing_is_wider_than_the_window(open_page, width, query):
    page = open_page(query, width=width, height=844)
    assert fits(page)
    if width == 390 and query == "?q=红":
        assert page.locator("aside").is_hidden()
        page.locator("#toggle").click()
        assert page.locator("aside").is_visible()
        assert fits(page)


def test_a_server_that_is_gone_is_said_in_words(open_page):
    page = open_page("?q=红")
    page.route("**/search?*", lambda route: route.abort())
    page.locator("#q").fill("绿")
    page.keyboard.press("Enter")
    page.wait_for_selector("#message:visible")
    assert "连接不上服务器" in page.locator("#message").inner_text()
    page.unroute("**/search?*")
    page.get_by_role("button", name="重试").click()
    page.wait_for_selector("a.card")
    assert "绿色" in titles(page)[0]


def test_all_that_can_be_used_has_a_name(open_page):
    page = open_page("?q=红")
    nameless = """() => [...document.querySelectorAll('button, a, input, select, img')].filter((each) => {
        if (each.type === 'file' || each.checkVisibility?.() === false) return false;
        if (each.tagName === 'IMG') return !each.hasAttribute('alt');
        return !(each.getAttribute('aria-label') || each.textContent.trim() || each.labels?.[0]?.textContent.trim());
    }).map((each) => each.outerHTML)"""
    assert page.evaluate(nameless) == []
