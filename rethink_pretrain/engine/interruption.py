"""A signal ends training behind the present step, with a checkpoint: nothing that was learnt is lost."""

import logging
import signal
import threading
from typing import Any

import torch
import torch.distributed as dist
from detectron2.engine import HookBase
from detectron2.utils import comm

from ..checkpoint import RethinkCheckpointer

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Interruption(HookBase):
    """On SIGTERM, SIGUSR1 or Ctrl-C: finishes the step, saves on the main process, and ends all processes.

    That is by `KeyboardInterrupt` for Ctrl-C and else by `SystemExit` with status 143. Processes get a signal
    at different times, so all of them agree behind each step. A second Ctrl-C ends at once.
    """

    def __init__(self, checkpointer: RethinkCheckpointer):
        self._checkpointer = checkpointer
        self._asked = 0  # the signal's number
        self._previous: dict[int, Any] = {}

    def before_train(self) -> None:
        """Listen; only Python's main thread can."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}

    def after_train(self) -> None:
        """Give the signals back to who had them."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def after_step(self) -> None:
        """Save and end where any process has been asked to."""
        asked = self._agree()
        done = self.trainer.iter + 1
        if not asked or self.trainer.ended or done == self.trainer.max_iter:
            return  # or there is nothing left but the last evaluation
        logger.info("%s: saving after iteration %d.", signal.Signals(asked).name, done)
        self._checkpointer.save(f"model_{self.trainer.iter:07d}", iteration=self.trainer.iter)
        comm.synchronize()  # the others would end the job before the file is there
        raise KeyboardInterrupt if asked == signal.SIGINT else SystemExit(128 + signal.SIGTERM)

    def _note(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and self._asked == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = number

    def _agree(self) -> int:
        if comm.get_world_size() == 1:
            return self._asked
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        asked = torch.tensor(self._asked, device=device)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        return int(asked)
