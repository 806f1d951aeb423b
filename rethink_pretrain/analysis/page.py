"""Pages to look at: a self-contained HTML file of text, tables, charts and pictures, or its pictures alone.

    sections = [Section("Curves", [Text("Three seeds each."), Chart(figure, "AP")]), ...]
    write_page("report.html", "Scratch and pre-trained", sections, subtitle="COCO val2017")

A page needs no network and nothing beside it, fits a phone, a dark screen and paper, and shows every string
that it is given as text.
"""

import base64
import io
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import jinja2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ..errors import UserError
from ..files import write_text
from .draw import beside


class Value(NamedTuple):
    """Words in a table that are sorted by a number, None last."""

    text: str
    sort: float | None


Cell = str | int | float | None | Value

_JPEG = {"quality": 78, "optimize": True}
_COLUMN_WIDTHS = {"narrow": 330, "wide": 540}  # px below which a picture of one or two panels is not squeezed
_WIDE = 7.0  # inches; what is wider would have tiny letters on a phone
_LONG = 20  # characters of a value from which on it may be broken into lines
SVG_SETTINGS = {
    "svg.hashsalt": "page",
    "svg.fonttype": "path",
}  # the same bytes each time, and no fonts to look for


class Text(NamedTuple):
    """A paragraph; the answer of a page is `large`."""

    text: str
    large: bool = False


class Table(NamedTuple):
    """Rows of cells; numbers are right-aligned, None and NaN are left blank. A click on a header sorts.

    A `Value` counts as a number.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""


class Chart(NamedTuple):
    """A figure of matplotlib, kept as vectors.

    About 5 inches wide, its letters suit a phone; a much wider one is scrolled there.
    """

    figure: Figure
    caption: str


class Columns(NamedTuple):
    """Charts that stand side by side where the screen is wide enough."""

    charts: Sequence[Chart]


class Picture(NamedTuple):
    """One image, or two that belong side by side: uint8 RGB (H, W, 3) each."""

    panels: Sequence[np.ndarray]
    caption: str


class Grid(NamedTuple):
    """Pictures in columns, all of one panel or all of two."""

    pictures: Sequence[Picture]


class Section(NamedTuple):
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Text | Table | Chart | Columns | Grid]


def write_page(path: str | Path, title: str, sections: Iterable[Section], *, subtitle: str = "") -> None:
    """The page as one file. Raises `UserError` where `path` cannot be written."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rethink_pretrain.analysis"),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    sections = [
        {"title": title, "blocks": [_describe(block) for block in blocks]} for title, blocks in sections
    ]
    html = environment.get_template("page.html").render(
        title=title, subtitle=subtitle, sections=sections, **_COLUMN_WIDTHS
    )
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_text(Path(path), html)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror}.") from None


def write_pictures(folder: str | Path, sections: Iterable[Section]) -> int:
    """Charts and pictures alone, as PNG files named after their sections; how many there are.

    Raises `UserError` where `folder` cannot be written.
    """
    folder, count = Path(folder), 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for title, blocks in sections:
            stem = re.sub(r"\W+", "_", title.lower()).strip("_")
            for number, item in enumerate(_pictures(blocks), 1):
                path = folder / f"{stem}_{number:02}.png"
                if isinstance(item, Chart):
                    item.figure.savefig(path, dpi=150)
                else:
                    Image.fromarray(beside(item.panels)).save(path)
                count += 1
    except OSError as error:
        raise UserError(f"Cannot write into {folder}: {error.strerror or error}.") from None
    return count


def _pictures(blocks: Iterable) -> list[Chart | Picture]:
    nested = (block[0] if isinstance(block, (Columns, Grid)) else [block] for block in blocks)
    return [item for items in nested for item in items if isinstance(item, (Chart, Picture))]


def _describe(block: Text | Table | Chart | Columns | Grid) -> dict:
    """What the template wants to know."""
    if isinstance(block, Text):
        return {"kind": "text", **block._asdict()}
    if isinstance(block, Table):
        return _describe_table(block)
    if isinstance(block, Columns):
        return {"kind": "columns", "charts": [_describe(chart) for chart in block.charts]}
    if isinstance(block, Chart):
        wide = block.figure.get_figwidth() > _WIDE
        return {"kind": "chart", "wide": wide, "source": _svg_uri(block.figure), "caption": block.caption}
    pictures = [
        {"panels": [_describe_panel(panel) for panel in panels], "caption": caption}
        for panels, caption in block.pictures
    ]
    pairs = any(len(picture["panels"]) > 1 for picture in pictures)
    return {"kind": "grid", "pictures": pictures, "pairs": pairs}


def _describe_table(table: Table) -> dict:
    columns = list(zip(*table.rows, strict=True)) or [()] * len(table.headers)
    sides = ["number" if any(map(_is_numeric, column)) else "" for column in columns]
    rows = [
        [{**_describe_cell(cell), "side": side} for cell, side in zip(row, sides, strict=True)]
        for row in table.rows
    ]
    headers = list(zip(table.headers, sides, strict=True))
    return {"kind": "table", "headers": headers, "rows": rows, "caption": table.caption}


def _describe_cell(cell: Cell) -> dict:
    """Its text, and the value by which it is sorted."""
    if isinstance(cell, Value):
        return {**_describe_cell(cell.sort), "text": cell.text, "words": len(cell.text) > _LONG}
    if cell is None or (_is_number(cell) and math.isnan(cell)):
        return {"text": "", "value": "", "words": False}
    if not _is_number(cell):
        return {"text": cell, "value": cell, "words": False}
    text = f"{cell:,}" if isinstance(cell, int) else f"{cell:.4g}"
    return {"text": text, "value": float(cell), "words": False}


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, (int, float))


def _is_numeric(cell: Cell) -> bool:
    return isinstance(cell, (int, float, Value))


def _describe_panel(pixels: np.ndarray) -> dict:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **_JPEG)
    height, width = pixels.shape[:2]
    return {"source": _data_uri("image/jpeg", buffer.getvalue()), "width": width, "height": height}


def _svg_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    with matplotlib.rc_context(SVG_SETTINGS):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _data_uri("image/svg+xml", buffer.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
