"""The one error that is a user's to mend, and how a tool shows it."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator

ECHO_SECONDS = 5  # that a process waits before it repeats what another one has probably said


class UserError(ValueError):
    """Something a user wrote or pointed at cannot work.

    The message is for reading as it stands: what is wrong, where, and what to do about it.
    """


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
