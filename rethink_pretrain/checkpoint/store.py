"""The checkpoints of a run's folder: each written whole, verified, found again, and cleared away in time."""

import hashlib
import logging
import re
import shutil
import zipfile
from collections.abc import Iterator
from errno import ENOSPC
from pathlib import Path
from typing import IO, Any

import torch

from ..errors import UserError
from ..files import sha256_of, write_atomically, write_text
from .reading import read_weights

logger = logging.getLogger(__name__)

LAST = "last_checkpoint"  # the host's name of the file that holds the name of the last checkpoint
_PERIODIC = re.compile(r"model_(\d{7,})\.pth")
_OTHERS = ("model_final.pth", "model_best.pth")
_SMALL_CHANGE = 1 << 20  # bytes of a checkpoint that are not tensors, and of the small files beside it


def write_checkpoint(path: Path, data: dict[str, Any], *, tag: bool = True, keep: int = 0) -> None:
    """Write `data` with torch, verify it, note its sha256 beside it; with `tag`, a resume starts there.

    Afterwards the oldest periodic checkpoints go, but for the newest `keep` (0: all stay). Raises `OSError`
    where it cannot be written; then everything is as it was before.
    """
    _check_space(path.parent, data)
    digest = hashlib.sha256()

    def verify(temporary: Path) -> None:
        if sha256_of(temporary, from_disk=True) != digest.hexdigest():
            raise OSError(f"what was read back from {temporary} is not what was written")
        _sidecar(path).unlink(missing_ok=True)  # of an earlier file of this name

    write_atomically(path, lambda file: torch.save(data, _Hashing(file, digest)), verify)
    write_text(_sidecar(path), f"{digest.hexdigest()}  {path.name}\n")  # the form of sha256sum
    if tag:
        tag_last(path)
    if keep:
        _clear(path.parent, keep)


def tag_last(path: Path) -> None:
    """Let the next resume start from this file of its folder."""
    write_text(path.parent / LAST, path.name)


def fault_of(path: Path) -> str:
    """What is wrong with a checkpoint, "" where it is whole.

    Judged by the sha256 beside it; without one, as of the host's checkpoints, by the check sums inside.
    """
    try:
        sidecar = _sidecar(path)
        if sidecar.is_file():
            expected = sidecar.read_text(encoding="utf-8", errors="replace").partition(" ")[0]
            return "" if sha256_of(path) == expected else "its sha256 is not the one noted beside it"
        if not path.stat().st_size:
            return "it is empty"
        if not zipfile.is_zipfile(path):
            return "it is cut off, or no file of torch"
        with zipfile.ZipFile(path) as archive:
            member = archive.testzip()
        return f"a check sum is wrong ({member})" if member else ""
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        return str(error) or type(error).__name__


def peek(path: Path) -> dict[str, Any]:
    """What a checkpoint holds; {} where it is missing, broken, or none of ours."""
    if not path.is_file() or fault_of(path):
        return {}
    try:
        return read_weights(str(path))
    except UserError:
        return {}


def find_good(folder: Path) -> tuple[Path | None, dict[str, str]]:
    """The checkpoint to resume from, and which others were passed over: name -> what is wrong with it.

    That is the one that `last_checkpoint` names; where that is broken or missing, the newest that is whole.
    """
    faults: dict[str, str] = {}
    for path in _candidates(folder):
        fault = fault_of(path)
        if not fault:
            return path, faults
        faults[path.name] = fault
    return None, faults


def has_any(folder: Path) -> bool:
    """Whether the folder holds checkpoints, whole or not."""
    return next(_candidates(folder), None) is not None


def remove_leftovers(folder: Path) -> None:
    """Delete what killed writers have left half written. Only where nobody else writes."""
    for path in (*folder.glob("model_*.pth.tmp"), *folder.glob("model_*.pth.sha256.tmp")):
        path.unlink(missing_ok=True)
    for sidecar in folder.glob("model_*.pth.sha256"):
        if not sidecar.with_suffix("").exists():
            sidecar.unlink(missing_ok=True)


def periodic(folder: Path) -> list[Path]:
    """Checkpoints named by their iteration, the newest first.

    By the time of writing: a run that went back to an earlier one has older files of higher numbers.
    """
    found = []
    for path in folder.glob("model_*.pth"):
        match = _PERIODIC.fullmatch(path.name)
        if match:
            found.append((path.stat().st_mtime_ns, int(match[1]), path))
    return [path for *_, path in sorted(found, reverse=True)]


def _candidates(folder: Path) -> Iterator[Path]:
    last = _tagged(folder)
    if last is not None and last.exists():
        yield last
    elif last is not None:
        logger.warning("%s names %s, which is not there.", folder / LAST, last.name)
    final, best = (folder / name for name in _OTHERS)
    for path in (final, *periodic(folder), best):
        if path != last and path.exists():
            yield path


def _tagged(folder: Path) -> Path | None:
    try:
        name = (folder / LAST).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    # Of this folder, whatever the file says: it may be a stranger's.
    if not name or name == ".." or Path(name).name != name or "\0" in name:
        return None
    return folder / name


def _clear(folder: Path, keep: int) -> None:
    last = _tagged(folder)
    for path in periodic(folder)[keep:]:
        if path != last:
            path.unlink(missing_ok=True)
            _sidecar(path).unlink(missing_ok=True)


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _check_space(folder: Path, data: Any) -> None:
    needed, free = _num_bytes(data) + _SMALL_CHANGE, shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(ENOSPC, f"no space left: {needed / 1e6:.0f} MB are needed", str(folder))


def _num_bytes(data: Any) -> int:
    if isinstance(data, torch.Tensor):
        return data.numel() * data.element_size()
    if isinstance(data, dict):
        return sum(map(_num_bytes, data.values()))
    return sum(map(_num_bytes, data)) if isinstance(data, (list, tuple)) else 0


class _Hashing:
    """A file that is hashed while it is written."""

    def __init__(self, file: IO[bytes], digest: Any):
        self._file, self._digest = file, digest

    def write(self, block: bytes) -> int:
        self._digest.update(block)
        return self._file.write(block)

    def flush(self) -> None:
        self._file.flush()
