"""Values from a stranger's file as a message shows them: on one line, and short."""

import reprlib
from typing import Any

_LONGEST = 60

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict = 2, 4, 2
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = _LONGEST


def quoted(value: Any) -> str:
    """`repr(value)`, shortened to at most 60 characters; however large or deeply nested `value` is."""
    text = _SHORT.repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def is_text(value: Any) -> bool:
    """Whether `value` is a string that UTF-8 can hold: JSON's "\\ud800" alone is half a character."""
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
