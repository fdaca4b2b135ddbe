"""The page of `minillm.trace` in a browser: it plays, steps, and can be read by everybody.

Needs playwright and a Chromium (`apt-get install chromium`, or CHROMIUM=path); for the check of accessibility also
axe-core: `npm pack axe-core`, and AXE=path of its axe.min.js.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from minillm import Tensor, nn, trace
from minillm import functional as F

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
AXE = os.environ.get("AXE", "")
EVIL = '</script><b id="evil">'
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Two pages: a network with checks, and a NaN under a name that would like to be HTML."""
    folder = tmp_path_factory.mktemp("pages")
    x, y = Tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), Tensor([[0.0], [1.0], [1.0], [0.0]])
    model = nn.Sequential(nn.Linear(2, 8, rng=1), nn.Tanh(), nn.Linear(8, 1, rng=2))
    trace(lambda: F.mse_loss(model(x), y)).save_html(folder / "network.html")
    a = Tensor([1.0, -2.0], requires_grad=True)
    with np.errstate(invalid="ignore"):
        trace((F.log(a) * 2.0).sum(), names={EVIL: a}).save_html(folder / "nan.html")
    return {path.stem: path.as_uri() for path in Path(folder).iterdir()}


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, pages):
    contexts = []

    def opened(name, width=1280, scheme="light", **options):
        context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.problems = []
        page.on("console", lambda message: page.problems.append(message.text))
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("request", lambda request: request.url == pages[name] or page.problems.append(request.url))
        page.goto(pages[name])
        return page

    yield opened
    for context in contexts:
        context.close()


def hidden(page):
    """How many parts of the graph are not there yet."""
    return page.evaluate("[...document.querySelectorAll('[data-step]')].filter(e => getComputedStyle(e).visibility"
                         " === 'hidden').length")  # fmt: skip


def test_it_steps_by_button_and_by_key(open_page):
    page = open_page("network")
    count, head = page.locator("#count"), page.locator("#now .head")
    assert count.inner_text() == "0 of 10" and "Forward is done" in head.inner_text()
    before = [hidden(page)]
    for step in range(1, 11):
        page.locator("#forth").click() if step % 2 else page.keyboard.press("ArrowRight")
        assert count.inner_text() == f"{step} of 10"
        assert head.inner_text() == page.locator(f"[data-item='{step}'] strong").inner_text()
        before.append(hidden(page))
        assert page.locator(".card.present").count() == 1
    assert before == sorted(before, reverse=True) and before[0] == 10 and before[-1] == 0
    page.keyboard.press("ArrowLeft")
    assert count.inner_text() == "9 of 10"
    page.locator("#reset").click()
    assert count.inner_text() == "0 of 10" and hidden(page) == 10
    page.keyboard.press("End")
    page.locator("#back").click()
    assert count.inner_text() == "9 of 10"
    page.keyboard.press("Home")
    page.locator("#slider").focus()
    page.keyboard.press("ArrowRight")  # the slider's own key: one step, not two
    assert count.inner_text() == "1 of 10"
    page.locator("#speed").focus()
    page.keyboard.press("End")  # the list's own key
    assert count.inner_text() == "1 of 10"
    page.locator(".card.loss").click()
    assert count.inner_text() == "1 of 10" and head.inner_text() == "Mean: loss = mean(t5)"
    assert page.problems == []


def test_it_plays_and_pauses(open_page):
    page = open_page("network")
    page.locator("#speed").select_option("4")
    page.locator("body").click(position={"x": 5, "y": 5})
    page.keyboard.press(" ")
    sync_api.expect(page.locator("#count")).to_have_text("3 of 10")
    page.keyboard.press(" ")
    assert page.locator("#play").inner_text() == "▶ Play"
    at = page.locator("#count").inner_text()
    page.wait_for_timeout(900)
    assert page.locator("#count").inner_text() == at
    page.keyboard.press("End")
    page.locator("#play").click()  # from the beginning again
    sync_api.expect(page.locator("#count")).to_have_text("1 of 10")
    assert page.problems == []


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_everybody_can_use_it(open_page, width, scheme):
    for name in ("network", "nan"):
        page = open_page(name, width, scheme, reduced_motion="reduce")
        for step in range(3):
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            if AXE:
                page.evaluate(Path(AXE).read_text(encoding="utf-8"))
                result = page.evaluate("axe.run()")
                assert [(v["id"], [n["target"] for n in v["nodes"]]) for v in result["violations"]] == []
            page.keyboard.press("ArrowRight") if step == 0 else page.keyboard.press("End")
        assert page.problems == []
    if not AXE:
        pytest.skip("fits; accessibility was not checked: AXE is not the path of axe.min.js")


def test_a_name_is_text(open_page):
    page = open_page("nan")
    page.keyboard.press("End")
    assert page.locator("#evil").count() == 0 and EVIL in page.locator("#now").inner_text()
    assert "arose forward" in page.locator(".warning").inner_text()
    assert page.locator(".card.bad").count() == 1


def test_without_javascript_it_is_all_there(open_page):
    page = open_page("network", java_script_enabled=False)
    assert not page.locator("#controls").is_visible() and not page.locator("#now").is_visible()
    for text in page.locator("svg .total, svg [data-step]").all():
        assert text.is_visible()
    assert page.locator("#steps li span").last.is_visible()
    assert page.locator("text=model.2.bias").last.is_visible()
