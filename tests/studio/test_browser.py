"""The studio as people have it: Debian's Chromium, driven by Playwright, and the server of `catgan studio` in a process."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from studio_process import StudioProcess

from catgan.errors import UserError
from catgan.sampling.pipeline import load
from catgan.sampling.styles import read_styles

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian's package)")

PICTURES = "Number(document.documentElement.dataset.pictures ?? 0)"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a studio of the shipped digits."""
    made = StudioProcess("digits")
    yield made.start()
    made.stop()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


Open = Callable[..., Any]


@pytest.fixture
def visit(chromium: Any) -> Iterator[Open]:
    """Opens a page of the studio, in a window of its own. In the end: no errors, and no request to another origin."""
    contexts, wrong, asked, own = [], [], set(), set()

    def open_page(address: str, lost: bool = False, **options: Any) -> Any:
        context = chromium.new_context(accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") and not lost else None
        )
        page.on("request", lambda request: asked.add(request.url))
        page.on("websocket", lambda opened: asked.add(opened.url))
        page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error('policy', e.violatedDirective, e.blockedURI))"
        )
        own.add(urlsplit(address).netloc)
        page.goto(address)
        drawn(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong
    assert {urlsplit(url).netloc for url in asked if urlsplit(url).scheme not in ("blob", "data")} == own


def wait_for(page: Any, true: str, seconds: float = 30) -> None:
    """Wait until an expression is true; fail if it does not become so. Playwright's own needs eval, which the page forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(true):
        assert time.monotonic() < end, f"{true}: not in {seconds} s; problem: {page.inner_text('#problem')}"
        page.wait_for_timeout(20)


def said(selector: str, words: str) -> str:
    """Whether an element's text has these words, as an expression for `wait_for`."""
    return f"document.querySelector({json.dumps(selector)}).textContent.includes({json.dumps(words)})"


def drawn(page: Any, more_than: int = 0) -> None:
    """Wait until more pictures have come than these."""
    wait_for(page, f"{PICTURES} > {more_than}")


def settled(page: Any) -> None:
    """Wait until no picture has come for half a second, by when the address is written too."""
    page.evaluate("window.seen = -1")
    wait_for(
        page,
        f"(() => {{ const now = performance.now(), n = {PICTURES};"
        "if (window.seen !== n) { window.seen = n; window.since = now; } return now - window.since > 500 })()",
    )


def pixels(page: Any, selector: str = "#view canvas.large") -> np.ndarray:
    """What a canvas shows, (height, width, 3)."""
    address: str = page.eval_on_selector(selector, "(canvas) => canvas.toDataURL()")
    with Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) as opened:
        return np.asarray(opened.convert("RGB"))


def made(**call: Any) -> np.ndarray:
    """What the pipeline itself makes, as a canvas shows it."""
    return load("digits")(**call).array[0].repeat(3, 2)


def slide(page: Any, selector: str, to: float) -> None:
    """Drag the thumb of a slider to a share of its way, with the mouse."""
    box = page.locator(selector).bounding_box()
    value, low, high = page.eval_on_selector(selector, "(s) => [Number(s.value), Number(s.min), Number(s.max)]")
    thumb = 16

    def x(share: float) -> float:
        return box["x"] + thumb / 2 + share * (box["width"] - thumb)

    middle = box["y"] + box["height"] / 2
    page.mouse.move(x((value - low) / (high - low)), middle)
    page.mouse.down()
    page.mouse.move(x(to), middle, steps=12)
    page.mouse.up()


def saved(page: Any, press: Callable[[], Any]) -> tuple[str, bytes]:
    """Name and bytes of the file that a click saves."""
    with page.expect_download() as waiting:
        press()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


# -- a sample ----------------------------------------------------------------------------------------------------------


def test_the_first_picture_is_the_pipelines(server: str, visit: Open) -> None:
    page = visit(server)
    settled(page)
    np.testing.assert_array_equal(pixels(page), made(classes=[0], seeds=[0]))
    assert page.title().startswith("digits ")
    assert page.inner_text("#status") == "connected"
    assert re.search(r"\d ms$", page.inner_text("#speed"))


def test_dragging_truncation_changes_pixels_all_the_way(server: str, visit: Open) -> None:
    page = visit(server)
    settled(page)
    before, count = pixels(page), page.evaluate(PICTURES)
    slide(page, "#psi", 0.3)
    settled(page)
    assert page.evaluate(PICTURES) - count >= 5  # while it was dragged
    psi = float(page.input_value("#psi"))
    assert 0.2 < psi < 0.4
    assert not np.array_equal(pixels(page), before)
    np.testing.assert_array_equal(pixels(page), made(classes=[0], seeds=[0], psi=psi))


def test_stages_are_scrubbed(server: str, visit: Open) -> None:
    page = visit(server + "#seed=4")
    settled(page)
    stages = load("digits")([0], [4], stages=True).stage_array[:, 0].repeat(3, 3)
    for k in range(len(stages)):
        page.locator("input.stage").fill(str(k))
        settled(page)
        np.testing.assert_array_equal(pixels(page), stages[k])
    page.get_by_role("button", name="x_0").click()
    settled(page)
    assert pixels(page).shape == (2, 2, 3)
    assert page.locator("tbody tr").count() == len(stages) - 1


def test_a_class_is_found_by_its_name_and_mixed_with_another(server: str, visit: Open) -> None:
    page = visit(server)
    page.fill("#label", "7")
    page.press("#label", "Enter")
    settled(page)
    np.testing.assert_array_equal(pixels(page), made(classes=[7], seeds=[0]))
    page.fill("#label", "no such class")
    page.press("#label", "Tab")
    assert page.get_attribute("#label", "aria-invalid") == "true"
    page.fill("#label", "7")
    page.fill("#other", "2")
    page.press("#other", "Enter")
    page.locator("#mix").fill("1")
    settled(page)
    np.testing.assert_array_equal(pixels(page), made(classes=[2], seeds=[0]))


def test_keys(server: str, visit: Open) -> None:
    page = visit(server + "#seed=3")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.input_value("#seed") == "4"
    page.keyboard.press("[")
    assert page.input_value("#psi") == "0.95"
    page.keyboard.press(",")
    settled(page)
    stages = load("digits")([0], [4], psi=0.95, stages=True).stage_array[:, 0].repeat(3, 3)
    np.testing.assert_array_equal(pixels(page), stages[-2])
    for number, view in enumerate(("sample", "seeds", "truncation", "sheet", "walk", "project"), 1):
        page.keyboard.press(str(number))
        assert page.locator("#tabs [aria-selected=true]").get_attribute("data-view") == view
    page.locator("#tab-project").focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.id") == "tab-walk"
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
    page.keyboard.press("1")
    page.focus("#seed")
    page.keyboard.press("End")
    page.keyboard.type("1")  # digits that are typed are no views
    assert page.input_value("#seed") == "41"
    assert page.locator("#tabs [aria-selected=true]").get_attribute("data-view") == "sample"


def test_a_link_brings_the_very_pixels_back(server: str, visit: Open) -> None:
    page = visit(server)
    page.fill("#seed", "123")
    page.fill("#label", "5")
    page.press("#label", "Enter")
    page.locator("#psi").fill("0.6")
    page.locator("#directions-box summary").click()
    page.locator("#direction-0").fill("2")
    settled(page)
    shown, link = pixels(page), page.url
    assert not np.array_equal(shown, made(classes=[5], seeds=[123], psi=0.6))
    page.reload()
    drawn(page)
    settled(page)
    np.testing.assert_array_equal(pixels(page), shown)
    again = visit(link)
    settled(again)
    np.testing.assert_array_equal(pixels(again), shown)


def test_an_address_that_makes_no_sense_is_said_to_be_so_and_can_be_left(server: str, visit: Open) -> None:
    page = visit(server + "#label=x&psi=7&seed=-1&view=nothing&stage=99&w=%3F")
    settled(page)
    np.testing.assert_array_equal(pixels(page), made(classes=[0], seeds=[0]))
    page.goto(server + "#label=77")
    wait_for(page, said("#problem", "class is 77"))
    page.goto(server + "#view=walk&points=" + json.dumps([{"colour": 1}, {}]))
    wait_for(page, said("#problem", "colour"))
    page.goto(server + "#seed=2")
    page.locator("#problem").wait_for(state="hidden")


def test_a_picture_and_its_style_are_saved_with_what_they_are(server: str, visit: Open, tmp_path: Path) -> None:
    page = visit(server + "#label=3&seed=8&psi=0.9")
    settled(page)
    page.get_by_text("Take it with you").click()
    name, data = saved(page, lambda: page.click("#save-png"))
    assert name == "digits-3-8.png"
    with Image.open(io.BytesIO(data)) as opened:
        words = dict(opened.text)
        np.testing.assert_array_equal(np.asarray(opened.convert("RGB")), pixels(page))
    state = json.loads(words["catgan"])
    assert {"label": 3, "seed": 8, "psi": 0.9, "recipe": "digits"}.items() <= state.items()
    assert state["generator"] == load("digits").fingerprint()
    again = visit(server + words["link"])
    settled(again)
    np.testing.assert_array_equal(pixels(again), pixels(page))
    _, style = saved(page, lambda: page.click("#save-style"))
    (tmp_path / "style.safetensors").write_bytes(style)
    pipe = load("digits")
    w, _ = read_styles(tmp_path / "style.safetensors", pipe)
    np.testing.assert_array_equal(pipe(w=w).array[0].repeat(3, 2), pixels(page))
    page.click("#copy-python")
    told: dict[str, Any] = {}
    code = page.inner_text("#copied").replace('.save("sample.png")', "")
    exec(code.replace("pipe(classes", "picture = pipe(classes"), told)
    np.testing.assert_array_equal(np.asarray(told["picture"].convert("RGB")), pixels(page))
    page.click("#copy-command")
    assert page.inner_text("#copied") == "catgan sample digits --classes 3 --seeds 8 --psi 0.9"


# -- the other views ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("view", "count"), [("seeds", 48), ("truncation", 11), ("sheet", 64)])
def test_many_pictures_each_of_which_opens(server: str, visit: Open, view: str, count: int) -> None:
    page = visit(f"{server}#label=6&seed=10&view={view}")
    settled(page)
    assert page.locator(".tiles canvas").count() == count
    tile = page.locator(".tiles button").nth(5)
    shown = pixels(page, ".tiles figure:nth-child(6) canvas")
    tile.click()
    settled(page)
    assert page.locator("#tab-sample").get_attribute("aria-selected") == "true"
    assert np.abs(pixels(page).astype(int) - shown).max() <= 1  # alone it may be rounded otherwise
    seed, psi = {"seeds": ("15", "1"), "truncation": ("10", "0.5"), "sheet": ("5", "1")}[view]
    assert (page.input_value("#seed"), page.input_value("#psi")) == (seed, psi)


def test_a_walk_plays_and_is_saved(server: str, visit: Open) -> None:
    page = visit(server + "#view=walk")
    settled(page)
    assert page.locator(".points li").count() == 3
    before, count = pixels(page), page.evaluate(PICTURES)
    page.keyboard.press("Space")
    drawn(page, count + 10)
    playing = pixels(page)
    page.keyboard.press("Space")
    assert not np.array_equal(playing, before)
    settled(page)
    page.keyboard.press("k")
    assert page.locator(".points li").count() == 4
    page.get_by_label("Remove key point 1").click()
    page.get_by_label("Key point 2 earlier").click()
    page.get_by_label("seconds a leg").fill("0.4")
    settled(page)
    name, data = saved(page, lambda: page.get_by_role("button", name="Save GIF").click())
    assert name == "walk.gif"
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.n_frames == 30
        assert opened.info["duration"] == 40
        first = np.asarray(opened.convert("RGB"))[::32, ::32]
    np.testing.assert_array_equal(first, made(classes=[0], seeds=[2]))


def test_a_picture_is_projected_and_edited(server: str, visit: Open) -> None:
    target = load("digits")([4], [1234]).images[0]
    buffer = io.BytesIO()
    target.save(buffer, "PNG")
    page = visit(server)
    page.click("#tab-project")
    page.get_by_label("search").select_option("100")
    page.set_input_files("#file", {"name": "../../four.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    page.get_by_role("button", name="Edit it").wait_for(timeout=120_000)
    psnr, start = (float(n) for n in re.findall(r"([\d.]+) dB", page.inner_text("#projection")))
    assert psnr > max(start, 20)
    page.get_by_role("button", name="Edit it").click()
    settled(page)
    error = np.square(pixels(page).astype(float) - np.asarray(target)[..., None]).mean()
    assert 10 * np.log10(255**2 / error) == pytest.approx(psnr, abs=0.5)
    assert page.locator("#given-row").is_visible()
    before = pixels(page)
    page.locator("#directions-box summary").click()
    page.locator("#direction-1").fill("-3")
    settled(page)
    assert not np.array_equal(pixels(page), before)
    page.get_by_role("button", name="Back to seeds").click()
    page.get_by_role("button", name="All to zero").click()
    settled(page)
    assert page.locator("#seed-row").is_visible()


def test_a_projection_is_cancelled_and_what_is_no_picture_is_said_to_be_none(server: str, visit: Open) -> None:
    page = visit(server + "#view=sample", lost=True)  # the browser reports what is answered by 400
    page.click("#tab-project")
    page.set_input_files("#file", {"name": "x.png", "mimeType": "image/png", "buffer": b"no picture"})
    wait_for(page, said("#projection", "picture cannot be read"))
    page.get_by_label("search").select_option("1000")
    buffer = io.BytesIO()
    Image.new("L", (8, 8), 90).save(buffer, "PNG")
    page.set_input_files("#file", {"name": "y.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    wait_for(page, said("#projection", "step "))
    page.get_by_role("button", name="Cancel").click()
    wait_for(page, said("#projection", "cancelled"))


def test_two_models_stand_side_by_side(visit: Open, tiny_model: Path) -> None:
    made_here = StudioProcess("digits", tiny_model)
    try:
        page = visit(made_here.start() + "#label=2&seed=6")
        settled(page)
        assert page.locator("article").count() == 2
        np.testing.assert_array_equal(pixels(page, "article:nth-child(1) canvas.large"), made(classes=[2], seeds=[6]))
        other = load(tiny_model)([2], [6]).array[0].repeat(3, 2)
        np.testing.assert_array_equal(pixels(page, "article:nth-child(2) canvas.large"), other)
        boxes = [page.locator("article").nth(k).bounding_box() for k in range(2)]
        assert boxes[0]["y"] == boxes[1]["y"]
        for view in ("seeds", "truncation", "sheet", "walk", "project"):
            page.click(f"#tab-{view}")
            settled(page)
        page.close()
    finally:
        made_here.stop()


# -- whoever and wherever ----------------------------------------------------------------------------------------------


def test_a_server_that_ends_is_missed_and_found_again(visit: Open) -> None:
    made_here = StudioProcess("digits")
    address = made_here.start()
    try:
        page = visit(address + "#seed=9", lost=True)
        settled(page)
        made_here.stop(signal.SIGKILL)
        wait_for(page, said("#status", "no connection"))
        page.fill("#seed", "10")
        count = page.evaluate(PICTURES)
        assert made_here.start() == address
        wait_for(page, said("#status", "connected"))
        drawn(page, count)
        settled(page)
        np.testing.assert_array_equal(pixels(page), made(classes=[0], seeds=[10]))
    finally:
        made_here.stop()


VIEWS = ("sample", "seeds", "truncation", "sheet", "walk", "project")


def test_a_phone_needs_no_scrolling_sideways(server: str, visit: Open) -> None:
    page = visit(server, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page.locator("#directions-box summary").click()
    for view in VIEWS:
        page.click(f"#tab-{view}")
        settled(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, view


LUMINANCE = """(selector) => {
  const style = getComputedStyle(document.querySelector(selector));
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => { const c = getComputedStyle(node).backgroundColor; return c === 'rgba(0, 0, 0, 0)' && node.parentElement ? ground(node.parentElement) : c };
  const [a, b] = [light(style.color), light(ground(document.querySelector(selector)))];
  return [b, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
}"""  # noqa: E501


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_light_or_dark_and_to_be_read_in_either(server: str, visit: Open, scheme: str) -> None:
    page = visit(server, color_scheme=scheme)
    settled(page)
    for selector in ("body", "header h1", "#status", "#label", "#random", ".hint", "#tab-sample", "figcaption"):
        ground, contrast = page.evaluate(LUMINANCE, selector)
        assert ground > 0.5 if scheme == "light" else ground < 0.2, selector
        assert contrast >= 4.5, selector


NAMELESS = """() => {
  const named = (node) => {
    const by = (node.getAttribute('aria-labelledby') ?? '').split(' ').map((id) => document.getElementById(id)?.textContent ?? '').join('');
    const inside = [...node.querySelectorAll('[aria-label]')].map((n) => n.getAttribute('aria-label')).join('');
    return (node.getAttribute('aria-label') || by || [...(node.labels ?? [])].map((l) => l.textContent).join('') || node.textContent || inside || node.title || '').trim();
  };
  const all = document.querySelectorAll('button, input, select, textarea, a, canvas, progress, summary, table th, [role=tab], [role=tabpanel], dialog');
  return [...all].filter((node) => node.type !== 'file' && !named(node)).map((node) => node.outerHTML.slice(0, 120));
}"""  # noqa: E501


def test_every_control_and_picture_has_a_name_for_those_who_do_not_see_it(server: str, visit: Open) -> None:
    page = visit(server)
    page.locator("#directions-box summary").click()
    for view in VIEWS:
        page.click(f"#tab-{view}")
        settled(page)
        assert page.evaluate(NAMELESS) == [], view
    assert page.get_attribute("html", "lang") == "en"
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((n) => n.id)")
    assert len(ids) == len(set(ids))


# -- for the documentation ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def garments() -> Iterator[str]:
    """The address of a studio of the shipped garments."""
    made_here = StudioProcess("fashion-mnist")
    yield made_here.start()
    made_here.stop()


SHOTS: dict[str, tuple[str, dict[str, Any]]] = {
    "sample": ("#label=8&seed=3", {"viewport": {"width": 1180, "height": 620}}),
    "walk": ("#view=walk&label=1&seed=3", {"viewport": {"width": 1180, "height": 800}}),
    "seeds": ("#view=seeds&label=9", {"viewport": {"width": 390, "height": 620}, "color_scheme": "dark"}),
}


@pytest.mark.parametrize("name", list(SHOTS))
def test_screenshots(garments: str, visit: Open, screenshots: Path, name: str) -> None:
    """`pytest tests/studio/test_browser.py -k screenshots --screenshots docs` writes those of the documentation."""
    address, options = SHOTS[name]
    page = visit(garments + address, **options)
    settled(page)
    shoot(page, screenshots / f"studio-{name}.png")


def test_screenshots_of_a_projection(
    garments: str, visit: Open, screenshots: Path, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--screenshots") is None:
        pytest.skip("takes half a minute, for the documentation alone: --screenshots")
    page = visit(garments, viewport={"width": 1180, "height": 680})
    page.click("#tab-project")
    page.get_by_label("search").select_option("100")
    buffer = io.BytesIO()
    load("fashion-mnist")([8], [2024]).images[0].save(buffer, "PNG")
    page.set_input_files("#file", {"name": "bag.png", "mimeType": "image/png", "buffer": buffer.getvalue()})
    page.get_by_role("button", name="Edit it").wait_for(timeout=300_000)
    shoot(page, screenshots / "studio-project.png")


def shoot(page: Any, path: Path) -> None:
    """Write what the window shows, in few colours."""
    with Image.open(io.BytesIO(page.screenshot())) as opened:
        opened.convert("RGB").quantize(128).save(path, optimize=True)
    assert 5_000 < path.stat().st_size < 150_000


@pytest.fixture(scope="module")
def static_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a folder with the shipped digits, which a server of files serves."""
    from catgan.studio.model import Model
    from catgan.studio.static import runtime_files, write_static
    from studio import page_without_server  # the benchmark's

    pytest.importorskip("onnxscript", reason="needs catgan[onnx]")
    try:
        runtime = runtime_files(False)
    except UserError as error:
        pytest.skip(str(error))
    folder = write_static([Model(load("digits"), "digits")], tmp_path_factory.mktemp("static") / "page", runtime)
    with page_without_server(folder) as address:
        yield address


def test_a_page_without_a_server_makes_the_same_pictures(static_page: str, visit: Open) -> None:
    """Within two grey levels, stages included; and nothing is asked of another origin."""
    page = visit(static_page + "#label=8&seed=3&psi=0.8")
    settled(page)
    difference = pixels(page).astype(int) - made(classes=[8], seeds=[3], psi=0.8).astype(int)
    assert np.abs(difference).max() <= 2
    stages = load("digits")([8], [3], psi=0.8, stages=True).stage_array[:, 0]
    for k in range(3):
        page.locator(".stage").fill(str(k))
        settled(page)
        assert np.abs(pixels(page).astype(int) - stages[k].astype(int)).max() <= 2
    assert page.get_by_role("tab", name="Your picture").is_hidden()


def test_a_page_without_a_server_mixes_moves_and_walks_like_the_server(
    static_page: str, server: str, visit: Open
) -> None:
    state = "#label=8&other=3&mix=0.4&seed=5&psi=0.9&directions=[1.5,-2]"
    both = []
    for address in (static_page, server):
        page = visit(address + state)
        settled(page)
        both.append(pixels(page).astype(int))
        page.click("#tab-truncation")
        settled(page)
        page.click("#tab-walk")
        settled(page)
        page.get_by_label("Position on the walk").fill("1.5")
        settled(page)
        both.append(pixels(page).astype(int))
    assert np.abs(both[0] - both[2]).max() <= 2
    assert np.abs(both[1] - both[3]).max() <= 2


def test_a_page_without_a_server_says_which_seeds_it_has(static_page: str, visit: Open) -> None:
    page = visit(static_page)
    page.goto(static_page + "#seed=5000")
    wait_for(page, said("#problem", "seed is 5000: this page has seeds 0 to 1023"))
    page.goto(static_page + "#seed=7")
    page.locator("#problem").wait_for(state="hidden")
