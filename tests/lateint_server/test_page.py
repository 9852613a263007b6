"""The page in a browser: Chromium, where there is one."""

import shutil

import numpy as np
import pytest
from servers import DIM, Painted, serving

from lateint import Index
from lateint_server.keys import Keys

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("there is no Chromium", allow_module_level=True)

MARKUP = "<script>window.broken = true</script> <img src=x onerror='window.broken = true'> end"
TEXTS = ["red fish swim", "blue birds fly 🐦 high", MARKUP]
SPANS = [[[0, 3], [4, 8], [9, 13]], [[0, 4], [5, 10], [17, 21]], [[0, 8], [38, 42]]]
KEYS = Keys.of([("read", "a-key-of-the-tests")])


def unit(*axes):
    """Tokens along axes."""
    return np.eye(DIM, dtype=np.float32)[list(axes)]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """Three texts and a picture, whose tokens lie along axes."""
    folder = tmp_path_factory.mktemp("page")
    images = pytest.importorskip("PIL.Image")
    (folder / "images").mkdir()
    images.new("RGB", (120, 80), "teal").save(folder / "images" / "a b.png")
    about = [{"lateint": {"spans": spans}, "title": f"Text {n}", "year": 2000 + n} for n, spans in enumerate(SPANS)]
    about.append({"lateint": {"image": "a b.png", "grid": [2, 3]}, "<b>bold</b>": "<i>x</i>"})
    tokens = [unit(0, 1, 2), unit(3, 4, 5), unit(6, 7), unit(8, 9, 10, 11, 12, 13)]
    Index.build(
        tokens,
        folder / "index",
        ids=["fish", "birds", "markup", "picture"],
        texts=[*TEXTS, None],
        metadata=about,
        nbits=8,
        progress=False,
    )
    return folder


@pytest.fixture
def page(browser, index):
    """An open page, which must have complained about nothing."""
    with serving({"things": Index.open(index / "index")}, images=index / "images") as url:
        context = browser.new_context()
        page, said = context.new_page(), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("requestfailed", lambda request: said.append(request.url))
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(url)
        yield page
        assert said == []
        assert all(one.startswith((url, "data:")) for one in asked)
        context.close()


def search(page, query, k=3):
    page.fill("#query", str(query.tolist()))
    page.fill("#k", str(k))
    page.click("#search")
    page.locator("#status", has_text="hit").wait_for()


def heat(page, words):
    return [float(page.eval_on_selector(f".token:text-is('{word}')", HEAT) or 0) for word in words]


HEAT = "element => element.style.getPropertyValue('--heat')"


def test_words_are_coloured_by_what_matches_them(page):
    search(page, unit(1, 0, 4))
    assert page.inner_text("#about") == "things: 4 documents"
    titles = page.locator(".hit h2 span:nth-child(2)").all_inner_texts()
    assert titles[:2] == ["Text 0", "Text 1"]
    assert page.inner_text(".hit >> nth=0 >> .text") == TEXTS[0]
    assert page.locator(".chip").all_inner_texts() == ["1", "2", "3"]
    red, fish, swim, birds = heat(page, ["red", "fish", "swim", "birds"])
    assert min(red, fish, birds) > 0.5 and swim < 0.1
    hues = [page.eval_on_selector(f".token:text-is('{word}')", HUE) for word in ("fish", "red", "birds")]
    assert hues == [page.eval_on_selector(f".chip >> nth={n}", HUE) for n in range(3)]


HUE = "element => element.style.getPropertyValue('--hue')"


def test_a_query_token_shows_its_matches(page):
    search(page, unit(1, 0, 4))
    page.hover(".chip >> nth=0")
    red, fish = heat(page, ["red", "fish"])
    assert fish > 0.5 and red < 0.1
    assert page.locator(".hit >> nth=0 >> .token.best").all_inner_texts() == ["fish"]
    page.mouse.move(0, 0)
    assert heat(page, ["red"])[0] > 0.5
    page.click(".chip >> nth=1")
    page.mouse.move(0, 0)
    red, fish = heat(page, ["red", "fish"])
    assert red > 0.5 and fish < 0.1
    assert page.get_attribute(".chip >> nth=1", "aria-pressed") == "true"
    page.keyboard.press("Tab")
    assert page.locator(".chip >> nth=2").evaluate("element => element === document.activeElement")
    assert heat(page, ["birds"])[0] > 0.5


def test_markup_is_text(page):
    search(page, unit(6, 7), k=4)
    assert page.inner_text(".hit >> nth=0 >> .text") == MARKUP
    assert page.evaluate("window.broken") is None
    assert page.locator(".hit script, .hit i, .hit b, .text img").count() == 0
    assert "<b>bold</b>" in page.inner_text("#hits")


def test_patches_lie_over_the_picture(page):
    search(page, unit(12))
    assert (
        page.locator(".hit >> nth=0 >> figure img").evaluate("image => image.decode().then(() => image.naturalWidth)")
        == 120
    )
    patches = page.locator(".hit >> nth=0 >> .patch")
    heats = [float(value or 0) for value in patches.evaluate_all(f"all => all.map({HEAT})")]
    assert len(heats) == 6 and heats.index(max(heats)) == 4 and sorted(heats)[-2] < 0.1
    image, patch = page.locator("figure img").bounding_box(), patches.nth(4).bounding_box()
    assert patch["x"] == pytest.approx(image["x"] + image["width"] / 3, abs=1)
    assert patch["y"] == pytest.approx(image["y"] + image["height"] / 2, abs=1)


@pytest.fixture(scope="module")
def flag(tmp_path_factory):
    """A picture of four quarters: red, white, white, blue."""
    images = pytest.importorskip("PIL.Image")
    picture = images.new("RGB", (90, 45), "white")
    picture.paste("red", (0, 0, 45, 23))
    picture.paste("blue", (45, 23, 90, 45))
    picture.save(tmp_path_factory.mktemp("flag") / "flag.png")
    return tmp_path_factory.getbasetemp() / "flag0" / "flag.png"


@pytest.fixture(scope="module")
def painted():
    """An index whose encoder reads pictures."""
    texts = ["red fish swim", "blue birds fly", "old green trees"]
    return Index.build(texts=texts, encoder=Painted(), nbits=8, progress=False)


def attach(page, picture):
    page.wait_for_selector("#picture-field:visible")
    page.set_input_files("#picture", picture)
    page.wait_for_selector("#preview:visible")


def test_a_query_may_have_a_picture(browser, painted, flag):
    """Its patches are query tokens like words, and each hit says what each of them adds."""
    with serving({"painted": painted}) as url:
        page, said = browser.new_page(), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(url)
        attach(page, flag)
        page.fill("#query", "swim")
        page.fill("#k", "2")
        page.click("#search")
        page.locator("#status", has_text="2 hits").wait_for()
        assert page.locator(".chip").all_inner_texts() == ["swim"]
        assert page.locator("#patches .patch").count() == 4
        fish = page.locator(".hit", has_text="red fish swim")
        heats = [float(value or 0) for value in fish.locator(".added .patch").evaluate_all(f"all => all.map({HEAT})")]
        assert heats[0] > 0.65 and max(heats[1:]) < 0.35
        picture, grid = (fish.locator(f".added {part}").bounding_box() for part in ("img", ".patches"))
        assert grid["height"] == pytest.approx(2 * picture["height"], abs=1)  # a box beyond the picture
        assert grid["y"] == pytest.approx(picture["y"] - picture["height"] / 2, abs=1)

        page.locator("#patches .patch").nth(0).focus()
        assert heat(page, ["red"])[0] > 0.6 > 0.1 > heat(page, ["swim"])[0]
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        assert heat(page, ["blue"])[0] > 0.6 and page.locator("#patches .patch.lit").count() == 1
        page.keyboard.press("Enter")
        page.mouse.move(0, 0)
        assert page.locator("#patches .patch").nth(3).get_attribute("aria-pressed") == "true"
        page.hover(".token:text-is('red')")
        heats = [float(value or 0) for value in fish.locator(".added .patch").evaluate_all(f"all => all.map({HEAT})")]
        assert heats[0] > 0.65 and max(heats[1:]) < 0.2
        assert "lit" in page.locator("#patches .patch").nth(0).get_attribute("class")

        page.click("#remove")
        page.click("#search")
        page.wait_for_selector("#patches", state="hidden")
        assert page.locator(".added").count() == 0 and page.locator(".chip").all_inner_texts() == ["swim"]
        assert said == []
        page.close()


def test_a_picture_alone_is_a_query(browser, painted, flag):
    with serving({"painted": painted}, max_pixels=5000) as url:
        page = browser.new_page()
        page.goto(url)
        attach(page, flag)
        page.click("#search")
        page.locator("#status", has_text="3 hits").wait_for()
        assert page.locator(".chip").count() == 0 and page.locator("#patches .patch").count() == 4
        page.close()
    with serving({"painted": painted}, max_pixels=4000) as url:
        page = browser.new_page()
        page.goto(url)
        attach(page, flag)
        page.click("#search")
        page.wait_for_selector("#status.bad")
        said = "query must have a picture of at most 4,000 pixels, got 90 x 45"
        assert page.inner_text("#status") == said
        page.close()


def test_no_picture_is_asked_for_where_none_is_read(page):
    assert page.locator("#picture-field").is_hidden()


def test_a_filter_leaves_some(page):
    page.fill("#filter", '{"year": {"$gte": 2001}}')
    search(page, unit(0, 3), k=4)
    assert sorted(page.locator(".hit h2 span:nth-child(2)").all_inner_texts()) == ["Text 1", "Text 2"]


def test_what_is_wrong_is_said(page):
    page.fill("#query", "some words")
    page.click("#search")
    page.wait_for_selector("#status.bad")
    assert page.inner_text("#status") == "The query must be token embeddings as JSON, a list of lists of numbers."


def test_a_key_is_asked_for(browser, index):
    with serving({"things": Index.open(index / "index")}, keys=KEYS) as url:
        page = browser.new_page()
        page.goto(url)
        page.fill("#key", "a-key-of-the-tests")
        page.fill("#query", "[[1]]")
        page.click("#search")
        page.locator("#about", has_text="things").wait_for()
        search(page, unit(0))
        assert page.locator(".hit").count() == 3
        assert "a-key" not in page.url
        page.close()


def test_the_page_of_the_routes_works_offline(browser, index):
    with serving({"things": Index.open(index / "index")}) as url:
        page, asked, said = browser.new_page(), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto(f"{url}/docs")
        page.wait_for_selector("text=The documents that match a query best")
        page.close()
    assert said == []
    assert all(one.startswith((url, "data:")) for one in asked)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_read(browser, index, scheme):
    """Contrast of text on its ground, by WCAG's formula: 4.5 and more."""
    with serving({"things": Index.open(index / "index")}) as url:
        page = browser.new_page(color_scheme=scheme)
        page.goto(url)
        pairs = page.evaluate(
            """() => [['body', 'body'], ['.quiet', 'body'], ['#search', '#search'], ['label', 'form']].map(([a, b]) =>
            [getComputedStyle(document.querySelector(a)).color,
             getComputedStyle(document.querySelector(b)).backgroundColor])"""
        )
        page.close()
    for ink, ground in pairs:
        assert contrast(ink, ground) >= 4.5, (ink, ground)


def contrast(one, other):
    def luminance(colour):
        values = np.array([int(value) for value in colour[4:-1].split(",")]) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    darker, lighter = sorted([luminance(one), luminance(other)])
    return (lighter + 0.05) / (darker + 0.05)
