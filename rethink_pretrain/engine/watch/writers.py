"""When metrics.json, TensorBoard and the like are written."""

import logging
from collections.abc import Callable

from detectron2.engine import HookBase
from detectron2.utils.events import EventWriter

from .evaluations import measured_now

logger = logging.getLogger(__name__)


class PromptWriter(HookBase):
    """As the host's PeriodicWriter, also right after an evaluation, and it goes on where the disk is full.

    An evaluation could be lost otherwise: to a kill before the period is over, or to the next evaluation.
    Runs that are resumed look the earlier ones up in metrics.json.
    """

    def __init__(self, build: Callable[[], list[EventWriter]], period: int):
        """`build` is called when training starts: only then is it known from which row files go on."""
        self._build, self._period = build, period
        self._writers: list[EventWriter] = []
        self._failing = False

    def before_train(self) -> None:
        """Open the files."""
        self._writers = self._build()

    def after_step(self) -> None:
        """At the end of a period, as in the host, and after evaluations. Writing twice does no harm."""
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter or measured_now(self.trainer.storage):
            self._write()

    def after_train(self) -> None:
        """What is left, and close the files."""
        self._write()
        for writer in self._writers:
            try:
                writer.close()
            except OSError as error:
                self._complain(writer, error)

    def _write(self) -> None:
        failing = False
        for writer in self._writers:
            try:
                writer.write()
            except OSError as error:
                failing = True
                self._complain(writer, error)
        self._failing = failing

    def _complain(self, writer: EventWriter, error: OSError) -> None:
        if not self._failing:  # once; the rows wait in the buffer and are written when there is space
            logger.error("%s cannot write: %s. Training goes on.", type(writer).__name__, error)
