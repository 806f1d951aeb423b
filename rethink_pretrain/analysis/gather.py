"""The runs that a command line names: RUN, ARM=RUN, or a folder that holds runs."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from .comparison import LeftOut
from .runs import RunData, read_metrics, read_runs
from .status import find_runs


def gather(words: Sequence[str], metric: str) -> tuple[list[RunData], list[LeftOut]]:
    """The runs with a value of `metric`, and the others.

    A folder without metrics.json stands for all runs below it. ARM=RUN names what the run started from; a
    path that exists is taken as it is. Raises `UserError` for what is no run, and for a run that is there
    twice.
    """
    paths: list[Path] = []
    arms: list[str | None] = []
    left_out = []
    for word in words:
        arm, path = _split(word)
        for run in _below(path):
            if path != run and not _has_rows(run):
                left_out.append(LeftOut(str(run), "it has no metrics yet"))
            else:
                paths.append(run)
                arms.append(arm)
    runs = read_runs(paths, arms) if paths else []
    measured = [run for run in runs if any(metric in row for row in run.rows)]
    if not measured:  # the comparison says what there is
        return runs, left_out
    left_out += [LeftOut(run.name, f"it never measured {metric}") for run in runs if run not in measured]
    return measured, left_out


def _split(word: str) -> tuple[str | None, Path]:
    """Arm and path of ARM=PATH."""
    arm, sign, path = word.partition("=")
    if not sign or Path(word).exists():
        return None, Path(word)
    if not arm or not path:
        raise UserError(f"{word!r} is no ARM=RUN: a name, =, and a run.")
    return arm, Path(path)


def _below(path: Path) -> list[Path]:
    """The run itself, or the runs in a folder that is none."""
    is_folder_of_runs = path.is_dir() and not (path / "metrics.json").is_file()
    return find_runs([path]) if is_folder_of_runs else [path]


def _has_rows(run: Path) -> bool:
    path = run / "metrics.json"
    return path.is_file() and bool(read_metrics(path))
