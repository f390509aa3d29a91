"""A report in a real Chromium: readable everywhere, asks nobody for anything, sorts and answers."""

import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from launch import report
from tests.launch.reports.real_runs import ODD, rows_of, write_row

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SIZES = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(runs: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Reports: of one run, of three, and of one in which everything went wrong."""
    folder = tmp_path_factory.mktemp("pages")
    bad = pathlib.Path(shutil.copytree(runs / "slow", folder / "bad"))
    write_row(bad, step=69, **{"train/loss": None, "eval/loss": None, "eval/accuracy": None})
    write_row(bad, step=69, event="diverged", what="the loss is not finite " * 9)
    (bad / "metrics.jsonl").open("a").write("nonsense\n")
    (bad / "plan.json").write_text("{}")
    of = {
        "one": [runs / "resumed"],
        "three": [runs / "resumed", runs / ODD, runs / "slow"],
        "bad": [bad],
    }
    for name, folders in of.items():
        assert report.main([*map(str, folders), f"--out={folder / name}.html"]) == 0
    return {name: folder / f"{name}.html" for name in of}


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens a file at a width and in a scheme; at the end nothing was said and nobody was asked."""
    contexts, said = [], []

    def open_page(path: pathlib.Path, width: int = 1280, scheme: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=width < 600
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append("a dialog"), dialog.dismiss()))
        page.on("request", lambda one: said.append(one.url) if is_foreign(one.url) else None)
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def is_foreign(url: str) -> bool:
    return not url.startswith(("file:", "data:"))


@pytest.mark.parametrize("name", ["one", "three", "bad"])
@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_it_can_be_read_on_any_screen(
    opened: Any, pages: dict[str, pathlib.Path], name: str, width: int, scheme: str
) -> None:
    page = opened(pages[name], width, scheme)
    for details in page.query_selector_all("details"):
        details.evaluate("details => details.open = true")
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
    drawn = page.locator(".plot svg").evaluate_all("all => all.map(svg => svg.clientWidth)")
    assert len(drawn) >= 4 and min(drawn) >= 240 and max(drawn) <= width
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 200) == (scheme == "dark")


def told(tip: str) -> dict[str, float]:
    """The values that a tip tells."""
    found = re.findall(r"(training|evaluation) ([\d.e-]+)", tip)
    return {kind: float(value) for kind, value in found}


def test_hovering_shows_the_values_that_were_logged(
    opened: Any, pages: dict[str, pathlib.Path], runs: pathlib.Path
) -> None:
    page = opened(pages["one"])
    figure = page.locator("figure", has=page.locator("h3", has_text="Loss"))
    last = rows_of(runs / "resumed")
    loss = [row["train/loss"] for row in last if "train/loss" in row][-1]
    evaluated = [row["eval/loss"] for row in last if "eval/loss" in row][-1]
    box = figure.locator(".plot").bounding_box()
    page.mouse.move(box["x"] + box["width"] - 15, box["y"] + 90)
    tip = figure.locator(".tip")
    assert told(tip.inner_text()) == pytest.approx(
        {"training": loss, "evaluation": evaluated}, 1e-4
    )
    assert f"step {last[-1]['step']} · epoch 4" in tip.inner_text()
    # The other charts show where that is; without the pointer nothing is shown.
    assert page.locator(".cross[visibility=visible]").count() >= 4
    page.mouse.move(2, 2)
    assert figure.locator(".tip").is_hidden()
    figure.locator(".plot").focus()
    for _ in range(50):
        page.keyboard.press("ArrowRight")
    assert told(tip.inner_text())["training"] == pytest.approx(loss, 1e-3)


def test_an_event_is_marked_and_told_where_it_was(
    opened: Any, pages: dict[str, pathlib.Path], runs: pathlib.Path
) -> None:
    page = opened(pages["one"])
    figure = page.locator("figure").first
    (step,) = (row["step"] for row in rows_of(runs / "resumed") if row.get("event") == "resumed")
    mark = figure.locator("line.event").first.bounding_box()
    page.mouse.move(mark["x"], mark["y"] + 50)
    assert f"step {step}: went on with --train_for 2ep" in figure.locator(".tip").inner_text()
    assert figure.locator("line.event").count() == 2
    page.locator("#events").uncheck()
    assert figure.locator("line.event").count() == 0


def names(page: Any) -> list[str]:
    return page.locator(".runs tbody th").all_inner_texts()


def test_the_table_sorts_by_a_click(opened: Any, pages: dict[str, pathlib.Path]) -> None:
    page = opened(pages["three"])
    assert names(page) == ["resumed", ODD, "slow"]
    step = page.locator(".runs thead th", has_text="step").first
    step.locator("button").click()
    assert names(page)[-1] == "resumed" and step.get_attribute("aria-sort") == "ascending"
    step.locator("button").click()
    assert names(page)[0] == "resumed" and step.get_attribute("aria-sort") == "descending"
    rate = page.locator(".runs thead th", has_text="learning_rate")
    rate.locator("button").press("Enter")
    assert names(page)[-1] == "resumed" and step.get_attribute("aria-sort") is None


def test_runs_are_switched_off_axes_changed_and_ranges_zoomed(
    opened: Any, pages: dict[str, pathlib.Path]
) -> None:
    page = opened(pages["three"])
    figure = page.locator("figure", has=page.locator("h3", has_text="Loss"))

    def curves() -> list[str]:
        return figure.locator("path.curve").evaluate_all(
            "all => all.map(one => one.getAttribute('d'))"
        )

    whole = curves()
    assert len(whole) == 6
    page.locator(".chips input").first.uncheck()
    assert len(curves()) == 4 and page.locator(".chips input:checked").count() == 2
    page.locator(".chips input").first.check()
    figure.locator(".log").click()
    logarithmic = curves()
    assert logarithmic != whole and figure.locator(".log").get_attribute("aria-pressed") == "true"
    figure.locator(".log").click()
    page.locator("#axis").select_option("epoch")
    assert "4" in figure.locator("svg text").all_inner_texts() or curves() == whole
    page.locator("#axis").select_option("step")
    box = figure.locator(".plot").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 90)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 90)
    page.mouse.up()
    assert curves() != whole
    page.locator("#reset").click()
    assert curves() == whole
    page.locator("#smooth").fill("0.9")
    assert figure.locator("path.raw").count() == 3


def test_all_that_is_folded_up_is_printed(opened: Any, pages: dict[str, pathlib.Path]) -> None:
    page = opened(pages["three"])
    assert page.locator("details:not([open])").count() > 0
    page.pdf()
    assert page.locator("details:not([open])").count() == 0
