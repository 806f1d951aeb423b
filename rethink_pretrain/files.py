"""Files of ours: written whole or not at all, and large JSON read fast."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from .errors import UserError
from .garbage import without_collection

_BLOCK = 1 << 20  # bytes read at once


def write_atomically(
    path: Path, write: Callable[[IO[bytes]], Any], check: Callable[[Path], Any] | None = None
) -> None:
    """Replace `path` by what `write` writes, so that it holds either all of it or what it held before.

    Also after a loss of power: the content is on the disk before it gets its name. `check` is given the
    temporary file; if that raises, or the writing does, the file is removed and `path` stays as it was.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if check:
            check(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)  # on a full disk, half a file is in the way
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """The new name is on the disk, too; not every system lets one ask for that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sha256_of(path: str | Path, *, from_disk: bool = False) -> str:
    """64 hexadecimal digits. `from_disk`: not of what the system has in memory, where it can forget that."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        if from_disk and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8), whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Replace `path` by `content` as JSON; `indent` None is the compact form."""
    write_text(path, json.dumps(content, indent=indent) + "\n")


def _loads_from_below(text: str, calls: int = 100) -> Any:
    """`json.loads` from `calls` calls further down: what it can read, it can read anywhere in a run.

    How deeply JSON may be nested depends on the stack that is left, and the host reads annotations again.
    """
    return _loads_from_below(text, calls - 1) if calls else json.loads(text)


def read_json(path: Path) -> Any:
    """The content of `path`. Raises `UserError` where it cannot be read or is not JSON."""
    try:
        with without_collection():  # annotations of COCO's size are read three times as fast
            return _loads_from_below(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply to be read.") from None
    except ValueError as error:  # not UTF-8, too
        raise UserError(f"{path} is not JSON: {error}.") from None
