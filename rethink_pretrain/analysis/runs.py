"""What a finished or running training has written: metrics.json."""

import json
import math
from pathlib import Path

from ..errors import UserError


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """The rows of a metrics.json of the host's form, one JSON object a line, by rising iteration.

    A resumed run repeats the iterations since its checkpoint: the later row counts, key by key. A last
    line cut off by a kill is left out. Raises `UserError` where there is no such file or another line is
    not JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; a run writes it into its OUTPUT_DIR.")
    lines = path.read_text(encoding="utf-8").splitlines()
    rows: dict[int, dict[str, float]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            iteration = int(row["iteration"])
        except (ValueError, KeyError, TypeError):
            if number == len(lines):
                break
            raise UserError(f"{path}, line {number}: not a row of metrics with an iteration.") from None
        rows.setdefault(iteration, {}).update(row)
    return [rows[iteration] for iteration in sorted(rows)]


def series(rows: list[dict[str, float]], key: str) -> tuple[list[int], list[float]]:
    """Iterations and values of `key` where it was measured; NaN, undefined by the data, is left out."""
    points = [(row["iteration"], row[key]) for row in rows if key in row and not math.isnan(row[key])]
    return [int(iteration) for iteration, _ in points], [value for _, value in points]
