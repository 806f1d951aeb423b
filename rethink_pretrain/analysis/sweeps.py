"""Sweeps: the list of runs that rebuild a table or a figure, and how far each has come."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ..errors import UserError
from ..plain_yaml import read_plain_yaml
from .runs import MAIN_METRICS, read_metrics


class Run(NamedTuple):
    """One training run. `opts` are KEY VALUE pairs for tools/train_net.py, OUTPUT_DIR among them."""

    name: str
    config: Path
    opts: list[str]
    output: Path


class State(NamedTuple):
    """`kind` is "pending" (no run there), "unfinished" or "finished". `total` is 0 where it is not known.

    `ap` is the last one, of boxes where there are boxes; a classifier has a top-1 accuracy for it.
    """

    kind: str
    iteration: int = 0
    total: int = 0
    ap: float | None = None
    metric: str = "AP"


def read_sweep(path: str | Path, root: str | Path = "output/sweeps") -> list[Run]:
    """The runs of a sweep file, each with its own name and its folder `root`/<sweep>/<name>.

    The file holds `runs`, a list of {config: path relative to the file, set: {KEY: value}, seeds: [0]}; a run
    per seed. Raises `UserError` for another form, a config that does not exist and two runs of one name.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(read_plain_yaml(str(path)))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not a sweep file ({' '.join(str(error).split())}).") from None
    entries = content.get("runs") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(f'{path}: a sweep is a list "runs" of {{config, set, seeds}}.')
    runs = [run for entry in entries for run in _expand(entry, path, Path(root) / path.stem)]
    names = [run.name for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"{path}: two runs are called {twice!r}; make them differ in config, set or seed.")
    return runs


def _expand(entry: Any, path: Path, folder: Path) -> list[Run]:
    if not isinstance(entry, dict) or "config" not in entry or entry.keys() - {"config", "set", "seeds"}:
        raise UserError(f"{path}: {entry!r} is no run; it has config, and may have set and seeds.")
    changes, seeds = entry.get("set") or {}, entry.get("seeds", [0])
    if not isinstance(changes, dict) or not isinstance(seeds, list) or not seeds:
        raise UserError(f"{path}: {entry['config']}: set is {{KEY: value}}, and seeds is a list of numbers.")
    config = path.parent / str(entry["config"])
    if not config.is_file():
        raise UserError(f"{path}: config {entry['config']!r} does not exist.")
    reserved = changes.keys() & {"SEED", "OUTPUT_DIR"}
    if reserved:
        raise UserError(f"{path}: {min(reserved)} is the sweep's to set, from seeds and names.")
    for word in (word for pair in changes.items() for word in map(str, pair)):
        if word.startswith("--") or word == "RETHINK.TRUST_PICKLE":  # a file does not decide that
            raise UserError(f"{path}: set holds {word!r}; a sweep sets keys of the config, and no flags.")
    changed = "".join(f"_{_slug(key.rpartition('.')[2])}_{_slug(value)}" for key, value in changes.items())
    opts = [word for key, value in changes.items() for word in (key, _word(value))]
    config = Path(*_without_dots(config))
    runs = []
    for seed in seeds:
        name = f"{config.stem}{changed}_seed{seed}"
        output = folder / name
        runs.append(Run(name, config, [*opts, "SEED", str(seed), "OUTPUT_DIR", str(output)], output))
    return runs


def _without_dots(path: Path) -> list[str]:
    """The parts of configs/a.yaml for configs/sweeps/../a.yaml."""
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts and parts[-1] not in ("..", "/"):
            parts.pop()
        else:
            parts.append(part)
    return parts


def _slug(value: Any) -> str:
    return re.sub(r"[^\w.@-]+", "-", str(value)).strip("-")


def _word(value: Any) -> str:
    """As the command line takes it: Python's notation, which the host reads back."""
    return value if isinstance(value, str) else repr(value)


def read_state(output: str | Path) -> State:
    """How far the run in `output` has come, by its files alone: config.yaml, run.json, metrics.json.

    Finished is a run whose last session ended at its last iteration and whose metrics hold an evaluation
    there, or that early stopping ended; a run that died in its last evaluation is resumed for it.
    """
    output = Path(output)
    config, record = load_part(output / "config.yaml"), load_part(output / "run.json")
    metrics = output / "metrics.json"
    rows = read_metrics(metrics) if metrics.is_file() else []
    if not config and not record and not rows:
        return State("pending")
    total = int(config.get("SOLVER", {}).get("MAX_ITER", 0))
    sessions = record.get("sessions") or [{}]
    measured = [(row["iteration"], row[k]) for row in rows for k in sorted(row) if k.endswith(MAIN_METRICS)]
    box = [(row["iteration"], row["bbox/AP"]) for row in rows if "bbox/AP" in row]
    iteration = max([sessions[-1].get("end_iter", 0), *(int(row["iteration"]) + 1 for row in rows[-1:])])
    ended = total > 0 and sessions[-1].get("end_iter", 0) >= total
    evaluated = any(at >= total - 1 for at, _ in measured)
    ap = (box or measured or [(0, None)])[-1][1]
    stopped = str(sessions[-1].get("ended", "")).startswith("stopped")
    kind = "finished" if stopped or (ended and evaluated) else "unfinished"
    metric = "top-1" if any("classification/top1" in row for row in rows) else "AP"
    return State(kind, min(iteration, total) if total else iteration, total, ap, metric)


def load_part(path: Path) -> dict[str, Any]:
    """config.yaml or run.json of a run, {} where it is missing or cut off."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
