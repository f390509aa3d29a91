"""TensorBoard's pages in a real browser, of two real runs: what a person sees first."""

import contextlib
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import Run

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: no page is looked at"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not installed: no page is looked at"
)
WAIT = 120_000  # milliseconds
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextlib.contextmanager
def tensorboard(folder: pathlib.Path) -> Iterator[str]:
    """TensorBoard's address, as it shows a folder."""
    command = [sys.executable, "-m", "tensorboard.main", f"--logdir={folder}", "--port=0"]
    process = subprocess.Popen(
        [*command, "--host=127.0.0.1", "--reload_interval=1"], stderr=subprocess.PIPE, text=True
    )
    try:
        lines = iter(process.stderr.readline, "")
        yield next(it[0] for line in lines if (it := re.search(r"http://[\d.]+:\d+/", line)))
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def page(board_runs: dict[str, Run]) -> Iterator[Any]:
    """A browser's page, at TensorBoard of two runs; `goto("text")` opens its page Text."""
    with (
        tensorboard(board_runs["one"].folder.parent) as address,
        playwright.sync_playwright() as started,
    ):
        browser = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1500, "height": 2200}, base_url=address)
        page.set_default_timeout(WAIT)
        yield page
        browser.close()


# All the text of a page, that of its components' shadow trees too, in the order of the page.
TEXT = """
const hidden = ["STYLE", "SCRIPT", "TEMPLATE"];
function text(node) {
  if (node.nodeType == Node.TEXT_NODE) return node.data;
  if (hidden.includes(node.tagName)) return "";
  const given = node.tagName == "SLOT" ? node.assignedNodes() : [];
  const inside = given.length ? given : (node.shadowRoot || node).childNodes;
  return [...inside].map(text).join(" ");
}
"""
IMAGES = """
function all(root) {
  const found = [...root.querySelectorAll("*")];
  return found.flatMap(e => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])]);
}
const images = all(document).filter(e => e.tagName == "IMG" && e.src.includes("individualImage"));
return images.filter(e => e.naturalWidth > 200).length;
"""


def shows(page: Any, name: str, *parts: str) -> None:
    """Opens a page of TensorBoard's, and waits until it shows these texts one behind the other."""
    page.goto(f"/#{name}")
    page.reload()  # a change behind the # alone leaves what was loaded
    pattern = ".*?".join(map(re.escape, parts))
    found = f"(pattern) => {{ {TEXT} return new RegExp(pattern, 's').test(text(document.body)); }}"
    try:
        page.wait_for_function(found, arg=pattern, polling=200)
    except playwright.TimeoutError:
        text = page.evaluate(f"() => {{ {TEXT} return text(document.body); }}")
        pytest.fail(f"{name} does not show {parts}: {' '.join(text.split())}")


def test_the_first_page_opens_with_loss_metric_and_rate(page: Any) -> None:
    learns = ("1_overview", "/1_loss", "one/eval", "one/train", "/2_accuracy", "one/eval")
    rate = ("/3_learning_rate", "one/plan", "one/train", "two/plan")
    rest = ("/4_gradient_norm", "/6_examples_per_second", "/7_input_wait_fraction", "/9_events")
    shows(page, "timeseries", *learns, *rate, *rest)


def test_custom_scalars_ask_the_questions_in_order(page: Any) -> None:
    # A chart has as many series as match: of two runs those of training and of the evaluation.
    learns = ("Does it learn?", "loss", "Matches", "(4)", "accuracy", "Matches", "(6)")
    rate = ("The learning rate, and its plan", "learning_rate", "Matches", "(4)")
    rest = ("The gradient", "gradient_norm", "How fast is it?", "What happened", "events")
    shows(page, "custom_scalars", *learns, *rate, *rest)


def test_images_show_examples_confusion_and_mistakes(page: Any) -> None:
    shows(page, "images", *(f"3_pictures/{name}" for name in ("confusion", "examples", "mistakes")))
    page.wait_for_function(f"() => (function() {{ {IMAGES} }})() == 6")


def test_texts_are_tables_and_code(page: Any) -> None:
    plan = ("1_plan", "one/plan", "learning rate  0.025 = 0.1 × 64/256", "two/plan", "0.05 = 0.2")
    shows(page, "text", *plan, "2_events", "what happened", "started", "3_command", "4_environment")
    for tag, said in (("td", "phase warmup linear"), ("code", "learning rate  0.025")):
        playwright.expect(page.locator(tag, has_text=said).first).to_be_visible(timeout=WAIT)


def test_hparams_put_what_differs_beside_what_came_of_it(page: Any) -> None:
    differ = ("Hyperparameters", "learning_rate", "seed", "augment", "Metrics", "Trial ID")
    shows(page, "hparams", *differ)
    for text in ("1_overview/2_accuracy", "2_details/best_accuracy", "0.20000"):
        playwright.expect(page.get_by_text(text).first).to_be_attached(timeout=WAIT)
    cells = [it.strip() for it in page.locator("vaadin-grid-cell-content").all_inner_texts()]
    assert [it.rpartition("/")[2] for it in cells if it.startswith("/")] == ["one", "two"]
