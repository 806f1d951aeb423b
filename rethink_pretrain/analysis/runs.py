"""What a finished or running training has written: metrics.json, config.yaml, run.json."""

import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import yaml

from ..errors import UserError
from ..files import read_json
from ..plain_yaml import read_plain_yaml

RANDOM = "random"  # the arm that starts from no weights
UNKNOWN = "unknown"
MAIN_METRICS = ("/AP", "/mIoU", "/PQ", "/top1")  # endings of the metrics that every evaluation of a task has

# Of the keys that something is computed from.
_TYPES = {"MODEL.WEIGHTS": str, "SEED": int, "SOLVER.IMS_PER_BATCH": int, "SOLVER.MAX_ITER": int}


class RunData(NamedTuple):
    """A run of ours or of the host. What its files do not tell is None or `UNKNOWN`."""

    name: str
    arm: str  # what it started from: RANDOM, the name of the weight file, or what the user calls it
    rows: list[dict[str, float]]  # as of `read_metrics`
    config: dict[str, Any]  # dotted key -> value; {} without config.yaml
    sessions: list[dict[str, Any]]  # of run.json, which a run of the host has not
    folder: Path | None = None  # None of a file of metrics alone

    @property
    def images_per_step(self) -> int | None:
        """None, too, where a resume changed it: images are then no multiple of iterations."""
        recorded = {session.get("recipe", {}).get("images_per_step") for session in self.sessions} - {None}
        if len(recorded) == 1:
            return recorded.pop()
        # The host scales the batch after it has written config.yaml.
        if recorded or self.config.get("SOLVER.REFERENCE_WORLD_SIZE"):
            return None
        return self.config.get("SOLVER.IMS_PER_BATCH")

    @property
    def length(self) -> int | None:
        """Iterations of the whole run, whether or not they are done."""
        return self.config.get("SOLVER.MAX_ITER")

    @property
    def schedule(self) -> str:
        """Its length in words: "6x", "540,000 iterations"."""
        words = "unknown length" if self.length is None else f"{self.length:,} iterations"
        return self.config.get("RETHINK.SCHEDULE") or words

    @property
    def seed(self) -> int | None:
        """The one in use where the config leaves it to chance."""
        drawn = [session["seed"] for session in self.sessions if "seed" in session]
        seed = self.config.get("SEED", -1)
        return seed if seed >= 0 else (drawn or [None])[-1]

    def steps_done(self, iterations: Iterable[int]) -> list[int]:
        """Training steps behind the values in the rows of those iterations.

        Rows count from 0 and are written after their step, except for the last evaluation: its row has the
        number of iterations.
        """
        trained = [int(row["iteration"]) + 1 for row in self.rows if "total_loss" in row]
        limit = self.length or (trained[-1] if trained else None)
        return [i + 1 if limit is None else min(i + 1, limit) for i in iterations]


def read_run(path: str | Path) -> RunData:
    """The run in a folder, or of its metrics alone in a file.

    Raises `UserError` where there are no metrics, or a file of another form.
    """
    (run,) = read_runs([path])
    return run


def read_runs(paths: Sequence[str | Path], arms: Sequence[str | None] | None = None) -> list[RunData]:
    """The runs in folders, or of files of metrics alone, whose names and arms tell apart what differs.

    `arms` has a name for the arm of each run, None where its weight file gives it. Raises `UserError` as
    `read_run`, and for a run that is there twice.
    """
    paths = [_run_path(path) for path in paths]
    twice = next((path for i, path in enumerate(paths) if path in paths[:i]), None)
    if twice:
        raise UserError(f"{twice} is given twice; a run is compared with others.")
    configs = [_read_config(path / "config.yaml") for path in paths]
    found = _arms([config.get("MODEL.WEIGHTS") for config in configs])
    arms = [given or arm for given, arm in zip(arms or found, found, strict=True)]
    names = _short_names([path.with_suffix("") if path.is_file() else path for path in paths])
    runs = []
    for path, name, config, arm in zip(paths, names, configs, arms, strict=True):
        metrics = path if path.is_file() else path / "metrics.json"
        rows = read_metrics(metrics)
        if not rows:
            raise UserError(f"{metrics} has no rows yet.")
        sessions = _read_sessions(path / "run.json")
        folder = None if path.is_file() else path
        runs.append(RunData(name, arm, rows, config, sessions, folder))
    return runs


def _run_path(path: str | Path) -> Path:
    """Absolute; the folder for its metrics.json, whose config.yaml belongs to it."""
    path = Path(os.path.abspath(path))
    return path.parent if path.name == "metrics.json" and path.is_file() else path


def _arms(weights: list[str | None]) -> list[str]:
    named = [_telling(name) for name in weights if name]
    short = dict(zip(named, _short_names(named), strict=True))
    return [UNKNOWN if name is None else short[_telling(name)] if name else RANDOM for name in weights]


def _telling(name: str) -> PurePath:
    """The path of a weight file, or of its folder where runs of ours all call their file that."""
    path = PurePath(name)
    generic = path.stem in ("backbone", "model_final", "model_best")
    return path.parent if generic and path.parent.name else path


def _short_names(paths: Sequence[PurePath]) -> list[str]:
    """The last parts of each path, as few as tell them apart."""
    number, names = 0, []
    while len(set(names)) < len(set(paths)):
        number += 1
        names = ["/".join(path.parts[-number:]) for path in paths]
    return names


def _read_config(path: Path) -> dict[str, Any]:
    """Dotted key -> value."""
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(read_plain_yaml(str(path)))
    except UserError:
        raise
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is not the config of a run: it holds no keys.")
    config = flatten(content)
    for key, kind in _TYPES.items():
        if not isinstance(config.get(key, kind()), kind):
            raise UserError(f"{path}: {key} is {config[key]!r}, where a run has a {kind.__name__}.")
    return config


def flatten(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key -> value of nested dicts."""
    ret = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        ret.update(flatten(value, f"{name}.") if isinstance(value, dict) else {name: value})
    return ret


def _read_sessions(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    record = read_json(path)
    sessions = record.get("sessions") if isinstance(record, dict) else None
    if not isinstance(sessions, list) or not all(isinstance(session, dict) for session in sessions):
        raise UserError(f'{path} is not the record of a run: a list "sessions" is missing.')
    return sessions


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """The rows of a metrics.json of the host's form, one JSON object a line, by rising iteration.

    A resumed run repeats the iterations since its checkpoint: the later row counts, key by key. A last
    line cut off by a kill is left out. Raises `UserError` where there is no such file or another line is
    not JSON.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path} does not exist; a run writes it into its OUTPUT_DIR.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None
    rows: dict[int, dict[str, float]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            iteration = int(row["iteration"])
        except (ValueError, KeyError, TypeError, OverflowError):
            if number == len(lines):
                break
            raise UserError(f"{path}, line {number}: not a row of metrics with an iteration.") from None
        rows.setdefault(iteration, {}).update(row)
    return [rows[iteration] for iteration in sorted(rows)]


def series(rows: list[dict[str, float]], key: str) -> tuple[list[int], list[float]]:
    """Iterations and values of `key` where it was measured; NaN, undefined by the data, is left out."""
    points = [(row["iteration"], row[key]) for row in rows if key in row and not math.isnan(row[key])]
    return [int(iteration) for iteration, _ in points], [value for _, value in points]
