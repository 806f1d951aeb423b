"""How far long work is: a live bar on a terminal, a plain line now and then elsewhere.

    for image in track(images, "Drawing"):
        ...
    with progress("Training", total=90_000) as task:
        task.advance(status="loss 1.234")

Bars stand on standard output, lines go to standard error, which leaves a tool's result alone in a pipe.
One screen holds all bars: work inside other work is a second row below the first, gone when it is done.
Nothing here starts a thread, so that forked workers are safe; a bar moves when its task does.
"""

import atexit
import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

LINE_PERIOD = 10.0  # seconds between two lines
QUIET_SECONDS = 1.0  # work that is done sooner gets no last line
REDRAW_PERIOD = 0.1  # seconds between two pictures of a bar

clock = time.monotonic  # seconds; tests have their own


def on_terminal() -> bool:
    """Whether bars are shown: standard output is a terminal that can move its cursor."""
    return sys.stdout.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def track(iterable: Iterable[Item], label: str, total: int | None = None) -> Iterator[Item]:
    """The items of `iterable`, shown as done when the next one is asked for.

    `total` is the number of items, by default `len(iterable)` where there is one.
    """
    if total is None and hasattr(iterable, "__len__"):
        total = len(iterable)
    with progress(label, total) as task:
        for item in iterable:
            yield item
            task.advance()


@contextlib.contextmanager
def progress(label: str, total: int | None = None, done: int = 0) -> Iterator["Task"]:
    """A task that the body moves on. `total` None is not known; `done` is what there was before."""
    task = start(label, total, done)
    try:
        yield task
    except BaseException:
        task.stop(complete=False)
        raise
    task.stop()


def start(label: str, total: int | None = None, done: int = 0) -> "Task":
    """As `progress`, for work that begins and ends in two places: call `stop` of the task."""
    return (_Bar if on_terminal() else Task)(label, total, done)


class Task:
    """Work that tells by lines how far it is."""

    def __init__(self, label: str, total: int | None, done: int = 0):
        self.label = label
        self.total = total
        self.done = done
        self.status = ""
        self._first = done
        self._started = self._shown = clock()
        self._said = False

    def advance(self, n: int = 1, status: str = "") -> None:
        """`n` more are done. `status` is a few words to show with the count."""
        self.move_to(self.done + n, status=status)

    def move_to(self, done: int, total: int | None = None, status: str = "") -> None:
        """`done` are done in all, of `total` where that has become known."""
        self.done, self.status = done, status
        self.total = self.total if total is None else total
        if self.done != self.total and clock() - self._shown >= self._period:  # `stop` shows the last
            self._show()
            self._shown = clock()

    def announce(self, status: str) -> None:
        """What comes next takes long and cannot move: a bar shows `status` at once."""
        self.status = status

    def stop(self, complete: bool = True) -> None:
        """The work ended, `complete` or by an error."""
        if complete and (self._said or clock() - self._started >= QUIET_SECONDS):
            self._print(f"{self._count()} in {duration(clock() - self._started)}")

    _period = LINE_PERIOD

    def _show(self) -> None:
        words = [self._count()]
        new = self.done - self._first
        if self.total is not None and new > 0:
            seconds = (clock() - self._started) / new * max(self.total - self.done, 0)
            words.append(f"{duration(seconds)} left")
        self._print(", ".join(words + [self.status] * bool(self.status)))
        self._said = True

    def _count(self) -> str:
        return f"{self.label}: {self.done}" + (f" of {self.total}" if self.total is not None else "")

    def _print(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class _Bar(Task):
    """A row of the screen. The screen ends with the task that opened it, whatever is still open inside.

    An error leaves loops behind that have not ended: a traceback holds them.
    """

    _period = REDRAW_PERIOD

    def __init__(self, label: str, total: int | None, done: int = 0):
        super().__init__(label, total, done)
        self._opens = _Screen.current is None
        self._screen = _Screen.current = _Screen.current or _Screen()
        self._row = self._screen.bars.add_task(label, total=total, completed=done, status="")
        self._screen.bars.refresh()

    def announce(self, status: str) -> None:
        self.status = status
        self._show()

    def stop(self, complete: bool = True) -> None:
        if self._screen is not _Screen.current:
            return
        self._show()
        if self._opens:
            self._screen.close(self._row)
        else:
            self._screen.remove(self._row)

    def _show(self) -> None:
        state = {"completed": self.done, "total": self.total, "status": self.status}
        self._screen.bars.update(self._row, refresh=True, **state)


class _Screen:
    """The one live display of rich, there while any bar is."""

    current: "_Screen | None" = None

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            # The one column that gives way on a narrow terminal.
            TextColumn("{task.fields[status]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
            console=Console(),  # of standard output as it is now
            expand=True,
            auto_refresh=False,
            speed_estimate_period=120,  # seconds
        )
        terminal = sys.stdout
        self.bars.start()
        # While the bars live, rich prints above them whatever goes through sys.stdout. Log handlers hold the
        # terminal itself and would write through the bars.
        self._redirected = [(handler, handler.setStream(sys.stdout)) for handler in handlers_of(terminal)]
        atexit.register(self.close)

    def remove(self, row: int) -> None:
        """Take away a row."""
        if row in self.bars.task_ids:
            self.bars.remove_task(row)
            self.bars.refresh()

    def close(self, row: int | None = None) -> None:
        """Leave `row` as it is, or all rows, and give the terminal and the log their streams back."""
        for other in self.bars.task_ids:
            if row not in (None, other):
                self.remove(other)
        self.bars.stop()
        for handler, stream in self._redirected:
            handler.setStream(stream)
        _Screen.current = None
        atexit.unregister(self.close)


def handlers_of(stream: object) -> list[logging.StreamHandler]:
    """The log handlers, of any logger, that write to `stream`."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    handlers = {id(h): h for logger in loggers for h in getattr(logger, "handlers", ())}
    return [handler for handler in handlers.values() if getattr(handler, "stream", None) is stream]


def duration(seconds: float) -> str:
    """ "0:12", "12:05" or "3:00:07"."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
