"""One training at a time in a folder."""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError

_PATIENCE = 20  # seconds for a process that is just ending, before its job is started again


@contextlib.contextmanager
def only_run_in(folder: Path, patience: float = _PATIENCE) -> Iterator[None]:
    """Raises `UserError` while another process trains in `folder`; a process that was killed holds nothing.

    File systems without locks are taken at their word.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as file:
        # Of the process, not of the open file: data-loading workers do not inherit it, and it ends with us.
        deadline = time.monotonic() + patience
        while not _acquire(file.fileno()):
            if time.monotonic() > deadline:
                raise UserError(
                    f"Another process is training in {str(folder)!r}. Wait for it, end it, or choose another "
                    "OUTPUT_DIR."
                )
            time.sleep(0.2)
        yield


def _acquire(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True
