"""Pages as a browser would parse them."""

import base64
import io
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from rethink_pretrain.analysis.page import (
    Chart,
    Columns,
    Grid,
    Picture,
    Section,
    Table,
    Text,
    Value,
    write_page,
    write_pictures,
)
from rethink_pretrain.errors import UserError

NASTY = """<script>alert(1)</script> "quoted" & 'single' <img src=x onerror=y>.jpg"""


class Parsed(HTMLParser):
    """Tags with their attributes, and the text outside of scripts and styles."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words, self._tag = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._tag = tag

    def handle_data(self, data):
        if self._tag not in ("script", "style") and data.strip():
            self.words.append(data.strip())

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def a_figure():
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([1, 2], [3, 4])
    return figure


def a_picture(height, width, color):
    return np.full((height, width, 3), color, dtype=np.uint8)


def every_block(words):
    panels = [a_picture(20, 30, 200), a_picture(20, 30, 10)]
    return [
        Text(words),
        Table((words, "number"), [(words, 1234), (words, None)], words),
        Chart(a_figure(), words),
        Grid([Picture(panels, words), Picture(panels, words)]),
    ]


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "folder" / "page.html"  # made
    write_page(path, NASTY, [Section(NASTY, every_block(NASTY))], subtitle=NASTY)
    return Parsed(path.read_text(encoding="utf-8"))


def decode(uri, kind):
    head, _, content = uri.partition(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(content)


def test_strings_of_users_stay_text(page):
    assert len(page.all("script")) == 1 and len(page.all("img")) == 5
    assert all("onerror" not in attrs and attrs["alt"] == NASTY for attrs in page.all("img"))
    # Title in the head and on the page, subtitle, heading, paragraph; header, two cells and caption of the
    # table; chart and two pictures.
    assert page.words.count(NASTY) == 12


def test_nothing_is_asked_of_the_network(page):
    assert {tag for tag, _ in page.tags} & {"iframe", "object", "base", "form"} == set()
    (icon,) = page.all("link")
    for uri in [icon["href"], *(attrs["src"] for attrs in page.all("img"))]:
        assert uri.startswith("data:")
    assert page.all("script") == [{}]


def test_pictures_are_jpeg_of_their_own_size(page):
    chart, *panels = page.all("img")
    for attrs, gray in zip(panels, (200, 10, 200, 10), strict=True):
        image = Image.open(io.BytesIO(decode(attrs["src"], "image/jpeg")))
        assert image.size == (int(attrs["width"]), int(attrs["height"])) == (30, 20)
        assert np.abs(np.asarray(image).astype(int) - gray).max() <= 2
    svg = ElementTree.fromstring(decode(chart["src"], "image/svg+xml"))
    assert svg.tag == "{http://www.w3.org/2000/svg}svg" and svg.get("viewBox") == "0 0 216 144"  # points


def test_cells(tmp_path):
    rows = [("a", 1234567, 0.123456, "1 ± 2"), ("b", None, float("nan"), "")]
    table = Table(("name", "count", "share", "words"), rows)
    write_page(tmp_path / "page.html", "t", [Section("s", [table, Table(("empty",), [])])])
    page = Parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
    cells = page.all("td")
    assert [cell["data-value"] for cell in cells] == [
        *("a", "1234567.0", "0.123456", "1 ± 2"),
        *("b", "", "", ""),
    ]
    assert [cell["class"] for cell in cells] == ["", "number", "number", ""] * 2
    assert [button["class"] for button in page.all("button")] == ["", "number", "number", "", ""]
    assert page.words[-7:] == ["words", "a", "1,234,567", "0.1235", "1 ± 2", "b", "empty"]


def test_words_that_sort_by_a_number(tmp_path):
    table = Table(("gap",), [(Value("-9.1 (-9.7 to -8.5), behind", -9.1),), (Value("none", None),)])
    write_page(tmp_path / "page.html", "t", [Section("s", [table])])
    cells = Parsed((tmp_path / "page.html").read_text(encoding="utf-8")).all("td")
    assert [cell["data-value"] for cell in cells] == ["-9.1", ""]
    assert [cell["class"] for cell in cells] == ["number words", "number"]  # the long one may break


def test_what_is_large_or_stands_side_by_side(tmp_path):
    wide = Figure(figsize=(10, 2))
    blocks = [Text("yes", large=True), Columns([Chart(a_figure(), "a"), Chart(wide, "b")])]
    write_page(tmp_path / "page.html", "t", [Section("s", blocks)])
    page = Parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert page.all("p") == [{"class": "large"}]
    assert [image["class"] for image in page.all("img")] == ["chart", "chart wide"]
    assert [div["class"] for div in page.all("div")] == ["columns", "scroll"]
    assert write_pictures(tmp_path / "pictures", [Section("s", blocks)]) == 2


def test_the_same_content_is_the_same_file(tmp_path):
    for name in "ab":
        write_page(tmp_path / name, "t", [Section("s", every_block("words"))])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_pictures_alone(tmp_path):
    sections = [Section("Kind: both", every_block("words")), Section("Ünïcode / 2", [Text("none")])]
    assert write_pictures(tmp_path / "pictures", sections) == 3
    files = sorted((tmp_path / "pictures").iterdir())
    assert [file.name for file in files] == [f"kind_both_0{number}.png" for number in (1, 2, 3)]
    assert Image.open(files[1]).size == (30 + 4 + 30, 20)


def test_what_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        write_page(tmp_path / "file" / "page.html", "t", [])
    with pytest.raises(UserError, match="Cannot write"):
        write_pictures(tmp_path / "file", [])
