"""Evaluations between the steps and at the end, which a full disk does not turn into the end."""

import logging
from collections.abc import Callable
from errno import EDQUOT, ENOSPC
from typing import Any

from detectron2.engine import hooks

logger = logging.getLogger(__name__)


class Evaluation(hooks.EvalHook):
    """The host's hook; at the end only of a training that has come there, not of one that failed."""

    def after_train(self) -> None:
        """All processes know alike whether training has finished."""
        if self.trainer.ended == "finished":
            self._do_eval()


def tolerating_full_disks(evaluate: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    """`evaluate`, or {} and a line in the log where the main process cannot write its results."""

    def tolerant() -> dict[str, Any]:
        try:
            return evaluate()
        except OSError as error:
            if error.errno not in (ENOSPC, EDQUOT):
                raise
            logger.error("This evaluation is lost, its files cannot be written: %s. Training goes on.", error)
            return {}

    return tolerant
