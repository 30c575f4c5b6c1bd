"""The report in a real browser: it works, asks nobody for anything, and can be read by everyone."""

import os
import re
import shutil
from pathlib import Path

import pytest

from featstore.api.report import write_report

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
SIZES = {"light": (1280, 900, "light"), "dark": (1280, 900, "dark"), "phone": (360, 740, "light")}
CONTRAST = """() => {
  const channels = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (rgb) => rgb.slice(0, 3).map((v) => linear(v / 255))
    .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const [r, g, b, a = 1] = channels(getComputedStyle(e).backgroundColor);
      if (a > 0.99) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || ["SCRIPT", "STYLE"].includes(element.tagName) || element.closest("svg")) continue;
    if (!element.checkVisibility()) continue;
    const [a, b] = [light(channels(getComputedStyle(element).color)), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push([node.textContent.trim().slice(0, 40), ratio.toFixed(2)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def report(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("browser") / "report.html"
    return write_report([world.compare, world.fuse], out, world.data, world.cache, with_images=True)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("CI must have chromium: .ci/run installs it where it can")
        pytest.skip("there is no chromium here")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Visit:
    """A page that has been opened, and everything that it said or asked for."""

    def __init__(self, browser, path, look="light", **options):
        width, height, scheme = SIZES[look]
        self.said, self.asked = [], []
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, **options
        )
        self.page = context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("requestfailed", lambda request: self.asked.append(request.url[:80]))
        self.page.route("**/*", lambda route: self._answer(route, path.as_uri()))
        self.page.goto(path.as_uri())

    def _answer(self, route, own):
        if route.request.url.split("#")[0] == own or route.request.url.startswith("data:"):
            route.continue_()
        else:
            self.asked.append(route.request.url[:80])
            route.abort()


@pytest.fixture(params=SIZES)
def visit(request, browser, report):
    found = Visit(browser, report, request.param)
    found.look = request.param
    yield found
    found.page.context.close()


@pytest.fixture
def page(browser, report):
    found = Visit(browser, report)
    yield found.page
    assert found.said == []
    found.page.context.close()


def test_it_opens_without_a_word_of_complaint_and_asks_nobody(visit):
    visit.page.wait_for_load_state("networkidle")
    assert visit.said == []
    assert visit.asked == []
    assert visit.page.locator("h1").inner_text() == "compare and vote"
    SHOTS.mkdir(parents=True, exist_ok=True)
    visit.page.screenshot(path=SHOTS / f"report-{visit.look}.png", full_page=True)


def test_every_image_has_loaded(visit):
    widths = visit.page.eval_on_selector_all("img", "all => all.map((image) => image.naturalWidth)")
    assert len(widths) > 2
    assert min(widths) > 0


def test_the_page_never_scrolls_sideways(visit):
    visit.page.eval_on_selector_all("details", "all => all.forEach((part) => { part.open = true; })")
    wide, window = visit.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= window


def test_every_text_stands_out_from_its_ground(visit):
    visit.page.eval_on_selector_all("details", "all => all.forEach((part) => { part.open = true; })")
    visit.page.locator(".case button").first.focus()
    assert visit.page.evaluate(CONTRAST) == []


def column(page, at):
    return page.eval_on_selector_all(
        f"#run1-scores ~ div:first-of-type tbody tr > :nth-child({at})",
        "all => all.map((cell) => cell.dataset.key ?? cell.firstChild.textContent)",
    )


@pytest.mark.parametrize("how", ["click", "keyboard"])
def test_tables_sort_by_click_and_by_keyboard(page, how):
    table = page.locator("#run1-scores ~ .box table").first
    head = table.locator("thead th").nth(2)
    assert table.locator("thead th").nth(1).get_attribute("aria-sort") == "descending", "by AUC at first"

    def press():
        if how == "click":
            head.locator("button").click()
        else:
            head.locator("button").focus()
            page.keyboard.press("Enter")

    press()
    assert head.get_attribute("aria-sort") == "descending"
    values = [float(value) for value in column(page, 3)]
    assert len(values) == 4 + 3  # contestants, and guesses without a network
    assert values == sorted(values, reverse=True)
    press()
    assert head.get_attribute("aria-sort") == "ascending"
    assert [float(value) for value in column(page, 3)] == sorted(values)
    assert table.locator("[aria-sort]").count() == 1
    table.locator("thead th").first.locator("button").click()
    names = column(page, 1)
    assert names == sorted(names, key=str.lower)


@pytest.mark.parametrize("how", ["hover", "focus"])
def test_a_wrong_answer_shows_its_votes_to_the_mouse_and_to_the_keyboard(page, how):
    case = page.locator(".case").nth(1)
    card = case.locator(".tip")
    assert not card.is_visible()
    getattr(case.locator("button"), how)()
    assert card.is_visible()
    assert case.locator("button").get_attribute("aria-describedby") == card.get_attribute("id")
    told = card.inner_text()
    for word in ("Probability", "Xception", "ResNet50", "Each backbone alone", "ill", "well"):
        assert word in told
    if how == "focus":
        page.keyboard.press("Escape")
        assert not card.is_visible()
        page.keyboard.press("Tab")
        assert page.locator(".case").nth(2).locator(".tip").is_visible()


def test_a_card_stays_within_the_window(visit):
    visit.page.eval_on_selector_all("details", "all => all.forEach((part) => { part.open = true; })")
    for case in visit.page.locator(".case").all():
        case.locator("button").focus()
        box = case.locator(".tip").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= SIZES[visit.look][0]
        if visit.look == "phone":
            assert box["y"] + box["height"] <= SIZES["phone"][1], "docked at the bottom"


def test_the_reader_chooses_light_or_dark(page):
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.locator("#theme").click()
    dark = page.evaluate(ground)
    assert light != dark
    page.locator("#theme").press("Enter")
    assert page.evaluate(ground) == light


def test_the_keyboard_finds_the_way_past_the_contents(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) != "none", "focus can be seen"
    page.keyboard.press("Enter")
    page.wait_for_url("**#main")  # on a busy machine that takes a moment


def test_on_paper_stands_what_is_open_and_nothing_is_a_button(page):
    page.emulate_media(media="print")
    page.locator("#run1-scores ~ details").first.evaluate("part => { part.open = true; }")
    assert page.locator("#run1-scores ~ details").first.is_visible()
    assert not page.locator("#run1-scores ~ details").nth(1).is_visible()
    assert not page.locator("#worksheet").is_visible(), "a heading without anything below it"
    assert page.locator(".unprinted").is_visible()
    assert not page.locator("nav.contents").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate(CONTRAST) == []
    SHOTS.mkdir(parents=True, exist_ok=True)
    (SHOTS / "report.pdf").write_bytes(page.pdf(format="A4"))


def test_one_comparison_prints_on_eight_pages_at_most(browser, world, tmp_path):
    out = write_report(
        world.compare, tmp_path / "r.html", world.data, world.cache, with_images=True, names=True
    )
    visit = Visit(browser, out)
    printed = visit.page.pdf(format="A4")
    visit.page.context.close()
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b(?!s)", printed)) <= 8


def test_the_table_of_scores_fits_screen_paper_and_phone(visit):
    overhang = "box => box.scrollWidth - box.clientWidth"
    boxes = (
        visit.page.locator("#run1-scores ~ .box").first,
        visit.page.locator("#run1-patients ~ div .box").first,
    )
    for box in boxes:
        assert box.evaluate(overhang) <= 0
    visit.page.emulate_media(media="print")
    visit.page.set_viewport_size({"width": 688, "height": 1000})  # A4 less its margins, at 96 dots per inch
    for box in boxes:
        assert box.evaluate(overhang) <= 0


def test_it_can_be_read_without_its_script(browser, report):
    found = Visit(browser, report, java_script_enabled=False)
    assert found.page.locator("#run1-scores ~ .box tbody tr").first.is_visible()
    assert not found.page.locator("#theme").is_visible()
    found.page.locator(".case button").first.hover()
    assert found.page.locator(".case .tip").first.is_visible()
    found.page.context.close()
