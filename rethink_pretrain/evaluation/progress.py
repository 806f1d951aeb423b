"""The batches of a test loader: a bar over them in place of the host's lines, and who may end them early."""

import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

from detectron2.utils import comm

from ..data import ended_workers
from ..errors import worker_errors
from ..progress import handlers_of, on_terminal, track

_HOSTS_LINES = ("detectron2.evaluation.evaluator", "Inference done")  # logger, beginning

Through = Callable[[Iterable[Any]], Iterator[Any]]
_through: ContextVar[Through] = ContextVar("_through", default=iter)


@contextlib.contextmanager
def batches_through(through: Through) -> Iterator[None]:
    """Inside, the batches of every loader `with_progress` go through `through(batches)`.

    It gives each of them on, and may raise to end the evaluation: also off terminals, and in all processes.
    """
    token = _through.set(through)
    try:
        yield
    finally:
        _through.reset(token)


def with_progress(loader: Any, label: str) -> "LoaderWithProgress":
    """`loader` itself in all but its look on a terminal, where a bar called `label` shows its batches."""
    return LoaderWithProgress(loader, label)


class LoaderWithProgress:
    """A loader of known length; see `with_progress`.

    Of several processes the main one has a bar. Without a terminal nobody has, and the host's lines remain.
    """

    def __init__(self, loader: Any, label: str):
        self._loader = loader
        self._label = label

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        with worker_errors(), ended_workers(iter(self._loader)) as batches:
            yield from self._shown(_through.get()(batches))

    def _shown(self, batches: Iterable[Any]) -> Iterator[Any]:
        if not on_terminal() or not comm.is_main_process():
            yield from batches
            return
        batches = track(batches, self._label, total=len(self._loader))
        with contextlib.closing(batches), contextlib.ExitStack() as stack:
            for number, batch in enumerate(batches):
                if number == 0:  # the bar is there now, and the log goes through it
                    stack.enter_context(_without_the_hosts_lines())
                yield batch

    def __getattr__(self, name: str) -> Any:
        if name == "_loader":  # asked for before there is one: by copy and pickle
            raise AttributeError(name)
        return getattr(self._loader, name)


@contextlib.contextmanager
def _without_the_hosts_lines() -> Iterator[None]:
    """Off the terminal; log.txt keeps them."""
    name, beginning = _HOSTS_LINES

    def is_other(record: logging.LogRecord) -> bool:
        return record.name != name or not record.getMessage().startswith(beginning)

    handlers = handlers_of(sys.stdout)
    for handler in handlers:
        handler.addFilter(is_other)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_other)
