"""Files of ours: written whole or not at all, and large JSON read fast."""

import gc
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from .errors import UserError


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Replace `path` by what `write` writes, so that it holds either all of it or what it held before.

    Also after a loss of power: the content is on the disk before it gets its name.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8), whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Replace `path` by `content` as JSON; `indent` None is the compact form."""
    write_text(path, json.dumps(content, indent=indent) + "\n")


def read_json(path: Path) -> Any:
    """The content of `path`. Raises `UserError` where it cannot be read or is not JSON."""
    # Every few hundred new objects the collector looks for garbage among millions that are none: without it,
    # annotations of COCO's size are read three times as fast.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None
    except ValueError as error:  # not UTF-8, too
        raise UserError(f"{path} is not JSON: {error}.") from None
    finally:
        if was_enabled:
            gc.enable()
