"""What the benchmarks found, as a table, and as the ratios of a figure."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..files import read_json

NOT_MEASURED = "not measured"
_STOCK = "stock"
_HEADER = ["| what | stock Detectron2 | ours | ratio | to reach |", "|---|---|---|---|---|"]


class Bar(NamedTuple):
    """One ratio of the figure: how many times faster than stock, its quartiles, and what it is to reach."""

    label: str
    ratio: float
    quartiles: tuple[float, float]
    target: float | None


def read_benchmarks(folder: str | Path) -> list[dict[str, Any]]:
    """All rows of the json files in `folder`, in the order of the files' names."""
    return [row for path in sorted(Path(folder).glob("*.json")) for row in read_json(path)["rows"]]


def benchmark_table(rows: Sequence[dict[str, Any]], *, only_bars: bool = False) -> list[str]:
    """Lines of a Markdown table: one for each contestant of ours in each row.

    `only_bars`: those alone that have something to reach, and what was not measured.
    """
    lines = list(_HEADER)
    for row in rows:
        if "not_measured" in row:
            lines.append(f"| {row['what']} | | {NOT_MEASURED}: {row['not_measured']} | | |")
        elif "values" in row:
            lines += _limit_lines(row)
        else:
            lines += _speed_lines(row, row["bars"] if only_bars else row["per_second"])
    return lines


def _speed_lines(row: dict[str, Any], names: Iterable[str]) -> list[str]:
    stock = row["per_second"].get(_STOCK)
    ret = []
    for name in names:
        if name != _STOCK:
            ratio = row["ratios"].get(name)
            cells = [f"{row['what']}: {name}", _rate(row, stock), _rate(row, row["per_second"][name])]
            cells += [_times(ratio["median"]) if ratio else "", _times(row["bars"].get(name))]
            ret.append(f"| {' | '.join(cells)} |")
    return ret


def _rate(row: dict[str, Any], value: float | None) -> str:
    """Seconds where the row has one unit of work, which nobody counts per second."""
    if value is None:
        return ""
    return (
        f"{short(1 / value)} s"
        if row["work"] == 1 and value < 100 and _is_whole(row)
        else (f"{short(value)} {row['unit']}")
    )


def _is_whole(row: dict[str, Any]) -> bool:
    return row["unit"].split("/")[0] in ("evaluations", "passes", "readings", "starts")


def _limit_lines(row: dict[str, Any]) -> list[str]:
    stock = row["values"].get(_STOCK)
    ret = []
    for name, limit in row["limits"].items():
        found = row["values"][name]["median"]
        cells = [f"{row['what']}: {name}", f"{short(stock['median'])} {row['unit']}" if stock else ""]
        cells += [f"{short(found)} {row['unit']}", "", f"at most {limit:g} {row['unit']}"]
        ret.append(f"| {' | '.join(cells)} |")
    return ret


def _times(value: float | None) -> str:
    return "" if value is None else f"{short(value)} x"


def short(value: float) -> str:
    """Three digits that count: "1,230", "12.3", "0.0123"."""
    if abs(value) >= 100:
        return f"{round(value, 2 - len(str(int(abs(value)))) + 1):,.0f}"
    return f"{value:.3g}"


def ratio_bars(rows: Sequence[dict[str, Any]]) -> list[Bar]:
    """What the figure shows: every ratio to stock."""
    ret = []
    for row in rows:
        for name, ratio in row.get("ratios", {}).items():
            label = row["what"] if name == "ours" else f"{row['what']}: {name}"
            ret.append(Bar(label, ratio["median"], tuple(ratio["quartiles"]), row["bars"].get(name)))
    return ret
