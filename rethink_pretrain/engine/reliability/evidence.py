"""What the folder of a run tells about it, read without the code that wrote it."""

import json
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch

# The host's words, too.
STARTED = re.compile(r"(?:[Tt]raining from iteration|This run is finished:) (\d+)")
EVALUATES = re.compile(r"Start inference on \d+ batches")
_LOADS = re.compile(r"\[Checkpointer\] Loading from (\S+)")


def log_of(folder: Path) -> str:
    """All that the sessions of the run have logged so far."""
    try:
        return (folder / "log.txt").read_text(errors="replace")
    except FileNotFoundError:
        return ""


def starts(log: str) -> list[int]:
    """The iteration that each session in `log` started from."""
    return [int(number) for number in STARTED.findall(log)]


def loaded(log: str) -> list[str]:
    """Names of the files that sessions in `log` have loaded."""
    return [Path(path).name for path in _LOADS.findall(log)]


def checkpoints(folder: Path) -> dict[str, bool]:
    """Names of the files with names of checkpoints, and whether each is a whole one."""
    return {path.name: is_whole(path) for path in sorted(folder.glob("model_*.pth"))}


def is_whole(path: Path) -> bool:
    """Whether torch reads all of a checkpoint, and every check sum in it is right."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip():
                return False
        return "model" in torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # whatever a broken file may do to its readers
        return False


def final_weights(folder: Path) -> dict[str, torch.Tensor] | None:
    """Name -> value of the model at the end; None where the run has left none that can be read."""
    path = folder / "model_final.pth"
    return torch.load(path, map_location="cpu", weights_only=True)["model"] if is_whole(path) else None


def same_weights(a: dict[str, torch.Tensor] | None, b: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return a is not None and a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of metrics.json; a row that is cut off is {}."""
    path = folder / "metrics.json"
    return [_parse(line) for line in path.read_text().splitlines()] if path.is_file() else []


def repeated_iterations(rows: list[dict[str, Any]]) -> list[int]:
    """Iterations that have more than one row."""
    counts = Counter(row.get("iteration", -1) for row in rows)
    return sorted(iteration for iteration, count in counts.items() if count > 1)


def last_iteration(folder: Path) -> int:
    """The last one that the folder knows of, -1 for none."""
    in_names = [int(path.stem.removeprefix("model_")) for path in folder.glob("model_[0-9]*.pth")]
    return max((*in_names, *(row.get("iteration", -1) for row in metrics(folder))), default=-1)


def evaluations(rows: list[dict[str, Any]]) -> dict[int, float]:
    """Iteration -> box AP."""
    return {row["iteration"]: row["bbox/AP"] for row in rows if "bbox/AP" in row}


def _parse(line: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except ValueError:
        return {}
