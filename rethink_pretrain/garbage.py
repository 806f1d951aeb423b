"""Python's cyclic garbage collector, where it only costs time."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """The collector rests; objects without cycles go as ever.

    Every few hundred new objects it looks for garbage among all that there are. Where millions are made that
    are to stay, such as a data set's annotations, that takes more time than making them.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
