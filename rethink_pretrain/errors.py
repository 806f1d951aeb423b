"""The one error that is a user's to mend, how a tool shows it, and how it comes out of a worker process."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator

ECHO_SECONDS = 5  # that a process waits before it repeats what another one has probably said

_TRACEBACK = "Traceback (most recent call last):\n"


class UserError(ValueError):
    """Something a user wrote or pointed at cannot work.

    The message is for reading as it stands: what is wrong, where, and what to do about it.
    """


def one_line(text: str) -> str:
    """`text` with a space for whatever would break the line or the terminal: file names may hold anything."""
    return "".join(char if char.isprintable() else " " for char in text)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """In a tool: end with `error: <message>` on stderr and exit status 1 instead of a traceback.

    Only for `UserError`; a bug of ours keeps its traceback. Where a launcher has started several processes,
    all of them come to the same mistake: the first of each machine says it, and is ended with the others.
    """
    try:
        yield
    except UserError as error:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            time.sleep(ECHO_SECONDS)
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None


@contextlib.contextmanager
def worker_errors() -> Iterator[None]:
    """Around what takes batches from torch's workers: what happens to those is told in one line.

    A worker's `UserError` gets its own message back, of which torch makes a traceback; a worker that is gone
    becomes one. torch tells the latter at any moment, also between two batches.
    """
    try:
        yield
    except UserError as error:
        message = _message_of_worker(str(error))
        if message is None:
            raise
        raise UserError(message) from None
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise UserError(
            f"A process that loads data has died ({one_line(str(error)).strip()}). Most likely the memory "
            "ran out: lower DATALOADER.NUM_WORKERS. If it crashed, tools/validate_dataset.py looks for the "
            "cause. --resume goes on from the last checkpoint."
        ) from None


def _message_of_worker(text: str) -> str | None:
    """What stands behind the name of the error below the last traceback in `text`; None without one."""
    _, found, traceback = text.rpartition(_TRACEBACK)
    lines = traceback.splitlines()
    last = next((number for number, line in enumerate(lines) if not line.startswith(" ")), None)
    if not found or last is None:
        return None
    return "\n".join(lines[last:]).partition(": ")[2]
