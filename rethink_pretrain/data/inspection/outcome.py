"""What the tool says and writes at its end."""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...files import write_json
from .image_files import ImageFile
from .repair import Repaired, repair
from .report import Report
from .values import LISTS


def check_paths(json_file: Path, image_root: Path, outputs: Iterable[Path]) -> None:
    """Raises `UserError` where the folder of images is none, or an output cannot be or is an input."""
    if not image_root.is_dir():
        raise UserError(f"The folder of images {image_root} does not exist.")
    taken = {json_file.resolve()}
    for path in outputs:
        if path.resolve() in taken:
            raise UserError(f"{path} is the json itself, or is named twice. Name another file to write.")
        if path.is_dir() or not path.parent.is_dir():
            raise UserError(f"{path} cannot be written: name a file in a folder that is there.")
        taken.add(path.resolve())


def summary(document: dict[str, Any], report: Report, json_file: Path, image_root: Path | None) -> str:
    """Size of the data set, the problems, and a verdict with the command of the repair.

    `image_root` None leaves that command out.
    """
    lines = [f"{json_file}: {_sizes(document)}", ""]
    if report.counts:
        lines += ["severity   count  kind: what it means; then the first examples", report.as_text(), ""]
    return "\n".join([*lines, _verdict(report, json_file, image_root)])


def _verdict(report: Report, json_file: Path, image_root: Path | None) -> str:
    if not report.counts:
        return "No problems found."
    found = f"{_count(report.num_errors, 'error')}, {_count(report.num_warnings, 'warning')}."
    if not report.num_errors:
        return f"{found} Fit for training; see whether the warnings are meant."
    if image_root is None:
        return f"{found} Not fit for training."
    where = f"--json {shlex.quote(str(json_file))} --images {shlex.quote(str(image_root))}"
    command = f"python tools/validate_dataset.py {where} --fix OUT"
    return f"{found} Not fit for training. A repaired copy:\n{command}"


def fix(
    document: dict[str, Any], image_root: Path, files: Mapping[str, ImageFile], output: Path
) -> tuple[str, dict[str, Any]]:
    """Write the repaired `document` to `output`; what was done, in words and for a JSON file.

    Where no image or no category is left, nothing is written. Raises `UserError` where it cannot be written.
    """
    repaired = repair(document, image_root, files)
    if not repaired.nothing_left:
        write(repaired.document, output, indent=None)
    return _describe(repaired, output), _as_dict(repaired, output)


def write(content: Any, output: Path, indent: int | None = 2) -> None:
    """As JSON, whole or not at all. Raises `UserError` where it cannot be."""
    try:
        write_json(output, content, indent)
    except OSError as error:
        raise UserError(f"Cannot write {output}: {error.strerror}.") from None
    except RecursionError:
        raise UserError(f"Cannot write {output}: a field is nested too deeply.") from None


def _describe(repaired: Repaired, output: Path) -> str:
    """What was mended and what was left out, by kind."""
    lines = [f"{output}: {_sizes(repaired.document)}"]
    if repaired.nothing_left:
        lines = [f"{output} is not written: nothing would be left of the {repaired.nothing_left}."]
    lines += [f"mended   {count:>7}  {kind}" for kind, count in sorted(repaired.mended.items())]
    lines += [
        f"dropped  {count:>7}  {what}: {kind}" for (what, kind), count in sorted(repaired.dropped.items())
    ]
    return "\n".join(lines if len(lines) > 1 else [*lines, "There was nothing to repair."])


def _as_dict(repaired: Repaired, output: Path) -> dict[str, Any]:
    dropped: dict[str, Counter] = {}
    for (what, kind), count in repaired.dropped.items():
        dropped.setdefault(what, Counter())[kind] = count
    written = None if repaired.nothing_left else str(output)
    return {"output": written, "mended": repaired.mended, "dropped": dropped}


def _sizes(document: dict[str, Any]) -> str:
    return ", ".join(f"{len(document[key])} {key}" for key in LISTS)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
