"""The report in a real browser, on a desk and on a phone: what it shows, complains of, and sorts."""

import html
import json
import re
import shutil
import subprocess

import pytest
from made_runs import make_run, make_study

from rethink_pretrain.analysis.comparison import compare_arms
from rethink_pretrain.analysis.page import write_page
from rethink_pretrain.analysis.report import report
from rethink_pretrain.analysis.runs import read_runs

CHROMIUM = shutil.which("chromium")
WIDTHS = (1280, 390)  # px
# A window cannot be as narrow as a phone, a frame can. What the page in it finds becomes an attribute, which
# --dump-dom prints.
FRAMES = """<!doctype html><script>
window.onmessage = ({data}) => document.documentElement.setAttribute("data-" + data.width, data.found);
</script>""" + "".join(f'<iframe src="page.html" width="{width}" height="900"></iframe>' for width in WIDTHS)
PROBE = """<script>
window.onload = () => {
  const box = element => element.getBoundingClientRect();
  const head = [...document.querySelectorAll("th")].find(cell => cell.textContent.trim() === "box AP");
  const click = () => {
    head.querySelector("button").click();
    const rows = [...head.closest("table").tBodies[0].rows];
    return rows.map(row => parseFloat(row.cells[head.cellIndex].dataset.value));
  };
  const found = JSON.stringify({
    reach: document.documentElement.scrollWidth,
    images: [...document.images].map(image => [image.naturalWidth, image.naturalHeight, box(image).width]),
    tooWide: [...document.body.querySelectorAll("*")]
      .filter(one => !one.closest(".scroll") && box(one).right > innerWidth + 1).map(one => one.outerHTML),
    scrolls: [...document.querySelectorAll(".scroll")].map(one => getComputedStyle(one).overflowX),
    large: parseFloat(getComputedStyle(document.querySelector(".large")).fontSize),
    text: parseFloat(getComputedStyle(document.querySelector(".caption")).fontSize),
    sorted: [click(), click()],
  });
  parent.postMessage({width: innerWidth, found}, "*");
  console.log("the probe has run");
};
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    paths = make_study(folder / "runs", lengths=(1, 3, 6), seeds=(0, 1))
    paths.append(make_run(folder / ("a_name_without_a_gap" * 6), config=True, RETHINK__SCHEDULE="1x"))
    runs = read_runs(paths)
    path = folder / "page.html"
    write_page(path, "Comparison", report(runs, compare_arms(runs)))
    path.write_text(path.read_text(encoding="utf-8") + PROBE, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def seen(page):
    """What each frame found, and the lines of the console."""
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    frames = page.with_name("frames.html")
    frames.write_text(FRAMES)
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    flags += [f"--user-data-dir={page.parent / 'profile'}", "--window-size=1800,1000"]
    command = [CHROMIUM, *flags, "--virtual-time-budget=5000", "--dump-dom", frames.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    found = dict(re.findall(r'data-(\d+)="([^"]*)"', done.stdout.partition("<iframe")[0]))
    console = re.findall(r'CONSOLE.*?\] "(.*)", source', done.stderr)
    return {int(width): json.loads(html.unescape(words)) for width, words in found.items()}, console


def test_no_complaints(seen):
    assert seen[1] == ["the probe has run"] * len(WIDTHS)


@pytest.mark.parametrize("width", WIDTHS)
def test_what_a_reader_sees(seen, width):
    found = seen[0][width]
    assert found["reach"] <= width and found["tooWide"] == []
    assert len(found["images"]) == 6
    assert all(min(size) > 100 for size in found["images"])
    assert set(found["scrolls"]) == {"auto"}
    assert found["large"] > 1.2 * found["text"]
    rising, falling = found["sorted"]
    assert rising == sorted(rising) and falling == rising[::-1] and len(set(rising)) > 5


def test_the_page_is_small(page):
    assert page.stat().st_size < 3e6
