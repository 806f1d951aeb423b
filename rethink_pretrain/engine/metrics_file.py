"""metrics.json over a resume: one row per iteration, whatever a kill has left."""

import json
from pathlib import Path
from typing import Any

from ..files import write_text


def rewind_metrics(path: Path, iteration: int) -> dict[str, Any]:
    """Drop the rows of `iteration` and later, which come again; the dropped row of `iteration` itself, or {}.

    Rows of one iteration become one, the later value of a key counts, and what a kill has cut off goes. The
    file is replaced whole, so nobody may have it open for writing.
    """
    if not path.is_file():
        return {}
    before = path.read_text(encoding="utf-8", errors="replace")
    rows: dict[int, dict[str, Any]] = {}
    for line in before.splitlines():
        row = _parse(line)
        if row is not None:
            rows.setdefault(int(row["iteration"]), {}).update(row)
    dropped = rows.get(iteration, {})
    kept = [rows[at] for at in sorted(rows) if at < iteration]
    after = "".join(json.dumps(row, sort_keys=True) + "\n" for row in kept)
    if after != before:
        write_text(path, after)
    return dropped


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        int(row["iteration"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
    return row
