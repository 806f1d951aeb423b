"""A signal ends a run behind the present step, or within an evaluation, with a checkpoint: nothing is lost.

Exit status: 143 after SIGTERM or SIGUSR1 and 130 after Ctrl-C, both saved: the same command with --resume
goes on. 1 is an error, 0 the end of training.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.utils import comm

from ..checkpoint import RethinkCheckpointer
from ..evaluation import batches_through
from .collectives import collective_device

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Interruption(HookBase):
    """On SIGTERM, SIGUSR1 or Ctrl-C: finishes the step, saves on the main process, and ends all processes.

    That is by `KeyboardInterrupt` for Ctrl-C and else by `SystemExit` with status 143. Processes get a signal
    at different times, so all of them agree behind each step and each loop of an evaluation. A second Ctrl-C
    ends at once. It is the last hook: while the others leave their records, signals stay harmless.
    """

    def __init__(self, checkpointer: RethinkCheckpointer):
        self._checkpointer = checkpointer
        self._asked = 0  # the number of the signal that this process has got, or heard of
        self._cut_by = 0  # that of the one that ended the last evaluation
        self._second_ends = False
        self._previous: dict[int, Any] = {}

    def before_train(self) -> None:
        """Listen; only Python's main thread can."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def after_train(self) -> None:
        """Give the signals back to who had them, and end where one has cut the last evaluation short."""
        self.release()
        if self._cut_by:
            self._checkpointer.wait()
            raise _exit_of(self._cut_by)

    def release(self) -> None:
        """Give the signals back; once more does no harm."""
        while self._previous:
            signal.signal(*self._previous.popitem())

    def after_step(self) -> None:
        """Save and end where any process has been asked to."""
        asked = self._agree()
        # At the end there is nothing left but the last evaluation.
        if asked and not self.trainer.ended and not self._trained:
            self._save_and_end(asked)

    def guard(self, evaluate: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
        """`evaluate`, left soon after a signal to any process.

        After the last step, of which the checkpoint is there, the result is then {}, so that the other hooks
        still come to their turn. All processes call it together.
        """

        def guarded() -> dict[str, Any]:
            try:
                with batches_through(self._until_asked):
                    return evaluate()
            except _Asked as asked:
                if not self._trained:
                    self._save_and_end(asked.number)
                self._cut_by = asked.number
                self.trainer.ended = "interrupted"
                return {}

        return guarded

    @property
    def _trained(self) -> bool:
        return self.trainer.iter + 1 >= self.trainer.max_iter

    def _save_and_end(self, asked: int) -> None:
        iteration = self.trainer.iter
        logger.info("%s: saving after iteration %d.", signal.Signals(asked).name, iteration + 1)
        self._checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
        self._checkpointer.wait()
        comm.synchronize()  # the others would end the job before the file is there
        raise _exit_of(asked)

    def _note(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT:
            if self._second_ends:
                raise KeyboardInterrupt
            self._second_ends = True
        self._asked = number

    def _until_asked(self, batches: Iterable[Any]) -> Iterator[Any]:
        """`batches`; raises `_Asked` behind the one in which a process hears of a signal.

        Each process has batches of its own here, and does not wait for the others before its last one.
        """
        mailbox = Mailbox()
        for batch in batches:
            self._asked = self._asked or mailbox.read()
            if self._asked:
                break
            yield batch
        asked = self._agree(mailbox)
        if asked:
            raise _Asked(asked)

    def _agree(self, mailbox: "Mailbox | None" = None) -> int:
        """The signal's number of any process, 0 without one; those that are late find a note in `mailbox`."""
        if comm.get_world_size() == 1:
            return self._asked
        asked = torch.tensor(self._asked, device=collective_device())
        work = dist.all_reduce(asked, op=dist.ReduceOp.MAX, async_op=True)
        while mailbox and not work.is_completed():
            if self._asked:
                mailbox.post(self._asked)
            time.sleep(0.02)  # in which Python can take a signal
        work.wait()
        return int(asked)


class _Asked(BaseException):
    """The signal `number` ends this evaluation. No error, so that nobody on its way takes it for one."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


def _exit_of(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + signal.SIGTERM)


class Mailbox:
    """Where one process tells the others of a signal while they are not in step.

    It is in the store of the process group, in which nothing is taken back: a signal ends all processes.
    Without a store, nobody hears of anything.
    """

    _KEY = "interruption"
    _PERIOD = 0.5  # seconds between two looks

    def __init__(self) -> None:
        self._store = _default_store()
        self._next_look = 0.0
        self._posted = False

    def post(self, number: int) -> None:
        """Tell all processes `number`."""
        if self._store is not None and not self._posted:
            self._store.set(self._KEY, str(number))
            self._posted = True

    def read(self) -> int:
        """What was posted; 0 for nothing, or where the last look was a moment ago."""
        now = time.monotonic()
        if self._store is None or now < self._next_look:
            return 0
        self._next_look = now + self._PERIOD
        return int(self._store.get(self._KEY)) if self._store.check([self._KEY]) else 0


def _default_store() -> dist.Store | None:
    find = getattr(dist.distributed_c10d, "_get_default_store", None)
    return find() if find and comm.get_world_size() > 1 else None
