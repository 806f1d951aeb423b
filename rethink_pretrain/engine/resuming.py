"""What a resumed session makes good for: rows of metrics that come again, and an evaluation that was lost."""

import logging
from pathlib import Path
from typing import Any

from detectron2.engine import DefaultTrainer, hooks
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from ..checkpoint import store
from .metrics_file import rewind_metrics
from .run_record import read_run_record
from .watch import PromptWriter
from .watch.early_stop import EarlyStopping
from .watch.evaluations import EvaluationHook, is_evaluated
from .watch.validation_loss import ValidationLoss

logger = logging.getLogger(__name__)

_AT_EVALUATIONS = (hooks.EvalHook, EvaluationHook, ValidationLoss, EarlyStopping, PromptWriter)


def rewind(trainer: DefaultTrainer) -> dict[str, Any] | None:
    """Take back from the folder of the run what `trainer` does again from its `start_iter` on.

    A kill may have come between the last checkpoint and the evaluation of the same iteration: then what that
    iteration has measured besides is returned, for `evaluate_missed`, else None. All processes call it.
    """
    row = None
    if comm.is_main_process():
        folder, done = Path(trainer.cfg.OUTPUT_DIR), trainer.start_iter
        store.remove_leftovers(folder)
        metrics = folder / "metrics.json"
        rewind_metrics(metrics, done)
        period = trainer.cfg.TEST.EVAL_PERIOD
        due = period > 0 and 0 < done < trainer.max_iter and done % period == 0
        if due and not is_evaluated(metrics, done - 1):
            row = rewind_metrics(metrics, done - 1)
    return comm.all_gather(row)[0]


def evaluate_missed(trainer: DefaultTrainer, row: dict[str, Any]) -> None:
    """The evaluation behind the iteration before `start_iter`, whose other values are `row`."""
    logger.info("The evaluation after iteration %d was lost: it comes now.", trainer.start_iter)
    storage = trainer.storage
    # One of its own, because the storage of training smooths some of these values and takes them for rows.
    with EventStorage(trainer.start_iter - 1) as trainer.storage:
        trainer.iter = trainer.start_iter - 1
        values = {name: value for name, value in row.items() if name != "iteration"}
        trainer.storage.put_scalars(**values, smoothing_hint=False)
        for hook in trainer._hooks:
            if isinstance(hook, _AT_EVALUATIONS):
                hook.after_step()
    trainer.storage, trainer.iter = storage, trainer.start_iter


def stopped_before(output_dir: str) -> str:
    """Why the run in the folder has ended before its last iteration, "" where it has not."""
    sessions = read_run_record(Path(output_dir, "run.json"))["sessions"]
    ended = (sessions[-1].get("ended") or "") if sessions else ""
    return ended.removeprefix("stopped: ") if ended.startswith("stopped: ") else ""
