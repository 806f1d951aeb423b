"""The one error that is a user's to mend, and how a tool shows it."""

import contextlib
import sys
from collections.abc import Iterator


class UserError(ValueError):
    """Something a user wrote or pointed at cannot work.

    The message is for reading as it stands: what is wrong, where, and what to do about it.
    """


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """In a tool: end with `error: <message>` on stderr and exit status 1 instead of a traceback.

    Only for `UserError`; a bug of ours keeps its traceback.
    """
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
