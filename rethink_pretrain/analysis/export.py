"""A comparison as files: each figure as PNG and SVG, curves and tables as CSV, all of it as JSON."""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from ..errors import UserError
from ..files import write_text
from .comparison import Comparison
from .curves import curve, positions
from .page import SVG_SETTINGS, Chart, Columns, Section, Table, Value
from .runs import RunData


def write_files(folder: str | Path, sections: Iterable[Section]) -> list[Path]:
    """Figures and tables, named after their sections. Raises `UserError` where `folder` cannot be written."""
    folder = Path(folder)
    written = []
    counts: Counter = Counter()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for title, blocks in sections:
            stem = re.sub(r"\W+", "_", title.lower()).strip("_")
            for item in _flat(blocks):
                counts[stem, type(item)] += 1
                path = folder / f"{stem}_{counts[stem, type(item)]:02}"
                written += _write_chart(path, item) if isinstance(item, Chart) else _write_table(path, item)
    except OSError as error:
        raise UserError(f"Cannot write into {folder}: {error.strerror or error}.") from None
    return written


def curves_table(runs: Sequence[RunData], metric: str, axis: str) -> Table:
    """Every evaluation of every run: its iteration, its place on `axis`, its value."""
    rows = []
    for run in runs:
        points = curve(run, metric, "iterations")
        places = positions(run, [int(steps) for steps, _ in points], axis)
        rows += [
            (run.name, run.arm, run.schedule, run.seed, int(steps), place, value)
            for (steps, value), place in zip(points, places, strict=True)
        ]
    return Table(("run", "start", "length", "seed", "iterations", f"on axis: {axis}", metric), rows)


def as_data(comparison: Comparison) -> dict[str, Any]:
    """For JSON: verdict, cells, gaps, catch-ups. Gaps are in percent points, None is not known."""
    c = comparison
    return {
        "verdict": c.verdict,
        "metric": c.metric,
        "reference": c.reference,
        "margin": c.margin,
        "confidence": c.confidence,
        "arms": c.arms,
        "lengths": c.lengths,
        "cells": [
            {"arm": cell.arm, "length": cell.length, "runs": [run.name for run in cell.runs]}
            | {"values": cell.values, "seeds": [run.seed for run in cell.runs]}
            for cell in c.cells.values()
        ],
        "gaps": [
            {"arm": arm, "length": length, "state": c.states[arm, length]}
            | (gap._asdict() if gap else dict.fromkeys(("estimate", "low", "high", "basis")))
            for (arm, length), gap in c.gaps.items()
        ],
        "catch_ups": {
            arm: {name: None if i is None else c.lengths[i] for name, i in found._asdict().items()}
            for arm, found in c.catch_ups.items()
        },
        "left_out": [entry._asdict() for entry in c.left_out],
    }


def _flat(blocks: Iterable) -> list[Chart | Table]:
    nested = (block.charts if isinstance(block, Columns) else [block] for block in blocks)
    return [item for items in nested for item in items if isinstance(item, (Chart, Table))]


def _write_chart(path: Path, chart: Chart) -> list[Path]:
    png, svg = path.with_suffix(".png"), path.with_suffix(".svg")
    chart.figure.savefig(png, dpi=200)
    with matplotlib.rc_context(SVG_SETTINGS):
        chart.figure.savefig(svg, metadata={"Date": None})  # the same figure is the same file
    return [png, svg]


def _write_table(path: Path, table: Table) -> list[Path]:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(
        [table.headers, *(map(_plain, row) for row in table.rows)]
    )
    write_text(path.with_suffix(".csv"), text.getvalue())
    return [path.with_suffix(".csv")]


def _plain(cell: Any) -> Any:
    """Blank for what the page leaves blank."""
    if isinstance(cell, Value):
        return cell.text
    return "" if isinstance(cell, float) and math.isnan(cell) else cell
