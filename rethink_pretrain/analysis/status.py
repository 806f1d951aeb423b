"""How the runs in a folder are doing, by their files alone."""

import json
import math
import os
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from .runs import read_metrics, series
from .sweeps import load_part, read_state

_SIGNS = ("config.yaml", "metrics.json")  # one of them makes a folder that of a run
_NOT_OURS = "wandb"  # has a config.yaml of its own for each of its runs
_WRITTEN = ("metrics.json", "log.txt", "run.json", "last_checkpoint")
_TIMED_ROWS = 50  # of metrics.json, whose median is the time of an iteration


class RunStatus(NamedTuple):
    """A run at a glance. What is not known is None; `total` is 0 then."""

    name: str
    state: str  # "unfinished", "finished", or "unreadable" with the reason as `incident`
    iteration: int
    total: int
    ap: float | None  # of boxes, where there are some, in percent
    seconds_per_iteration: float | None
    eta_seconds: float | None  # of the iterations alone, without evaluations
    incident: str | None
    seconds_since_write: float | None


def find_runs(folders: Iterable[str | Path]) -> list[Path]:
    """Folders of runs at or below `folders`, sorted. Raises `UserError` where there are none."""
    folders = [Path(folder) for folder in folders]
    runs = set()
    for folder in folders:
        for path, children, files in os.walk(folder):
            children[:] = [child for child in children if child != _NOT_OURS]
            if not set(files).isdisjoint(_SIGNS):
                runs.add(Path(path))
    if not runs:
        names = ", ".join(map(str, folders))
        raise UserError(f"No runs at or below {names}: a run's folder holds {' or '.join(_SIGNS)}.")
    return sorted(runs)


def read_status(run: Path, now: float | None = None) -> RunStatus:
    """The status of the run in that folder at `now`, seconds since 1970, by default the present."""
    written = [path.stat().st_mtime for path in (run / name for name in _WRITTEN) if path.is_file()]
    age = max(0.0, (time.time() if now is None else now) - max(written)) if written else None
    try:
        state = read_state(run)
        seconds = _seconds_per_iteration(run)
    except UserError as error:
        return RunStatus(str(run), "unreadable", 0, 0, None, None, None, str(error), age)
    left = max(state.total - state.iteration, 0)
    eta = left * seconds if seconds is not None and state.total and state.kind == "unfinished" else None
    ap = None if state.ap is None or math.isnan(state.ap) else state.ap
    incident = last_incident(run)
    return RunStatus(str(run), state.kind, state.iteration, state.total, ap, seconds, eta, incident, age)


def last_incident(run: Path) -> str | None:
    """In words: the last line of incidents.jsonl, else how the last session ended if it did not finish."""
    path = run / "incidents.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    if lines:
        return _in_words(lines[-1])
    sessions = load_part(run / "run.json").get("sessions") or [{}]
    ended = sessions[-1].get("ended")
    return None if ended == "finished" else ended


def _in_words(line: str) -> str:
    """ "iteration 12, kind nan": the plain values of a JSON object; any other line as it stands."""
    try:
        values = json.loads(line)
    except ValueError:
        return line.strip()
    if not isinstance(values, dict):
        return line.strip()
    return ", ".join(f"{key} {value}" for key, value in values.items() if not isinstance(value, (dict, list)))


def _seconds_per_iteration(run: Path) -> float | None:
    path = run / "metrics.json"
    _, times = series(read_metrics(path), "time") if path.is_file() else ([], [])
    return statistics.median(times[-_TIMED_ROWS:]) if times else None
