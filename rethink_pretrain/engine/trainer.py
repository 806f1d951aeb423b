"""The host's DefaultTrainer with this project's hooks, evaluator and checks."""

import contextlib
import logging
import weakref
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.engine import DefaultTrainer, HookBase, hooks
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import CommonMetricPrinter, EventStorage, EventWriter
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from .. import compat
from ..checkpoint import RethinkCheckpointer
from ..data import (
    BadImage,
    TrainLoader,
    build_mapper,
    build_train_loader,
    ignore_signals,
    micro_batch_size,
)
from ..errors import UserError, worker_errors
from ..evaluation import (
    RethinkCOCOEvaluator,
    build_evaluator,
    build_tta_model,
    evaluate_tta,
    in_batches,
    with_box_masks,
    with_progress,
)
from ..layers import use_fast_convolutions, use_fast_roi_align
from ..modeling.activation_checkpointing import checkpoint_activations
from .cascade_switch import build_cascade_switch
from .checkpoints import Checkpoints
from .doctor import check_up, count_images
from .evaluating import Evaluation, tolerating_full_disks
from .exposure import Exposure
from .fused_sgd import plain_update, speed_up
from .heap import keep_freed_memory
from .incidents import record_incident
from .interruption import Interruption
from .lock import only_run_in
from .memory_format import apply_memory_format, keep_memory_format
from .numerics import RollBack, build_loss_guard, halve_learning_rate
from .precise_bn import RepeatedPreciseBN
from .precision import autocast, prepare_for
from .progress import ProgressBar, build_progress_writer
from .recipe import describe_recipe, format_recipe
from .resuming import evaluate_missed, rewind, stopped_before
from .run_record import RunRecord
from .setup import check_categories, pick_device, write_config
from .train_loop import TrainLoop
from .unwrap import distribute
from .watch import PromptWriter, build_watch_hooks, build_watch_writers

logger = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Trains and evaluates what a resolved config describes, on any number of processes.

    ended: how training ended: "" until it has, "finished", "stopped: <reason>", "interrupted",
        "rolled back" or "failed: <error>".
    """

    def __init__(self, cfg: CfgNode):
        """The host's steps, whose wrapper for several processes needs GPUs and whose loop has no seam."""
        super(DefaultTrainer, self).__init__()
        if cfg.SEED < 0:
            cfg = cfg.clone()
            cfg.defrost()
            cfg.SEED = comm.shared_random_seed() % 2**31
        self.cfg = cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        if cfg.RETHINK.SPEED.KEEP_MEMORY and next(model.parameters()).device.type == "cpu":
            keep_freed_memory()
        self.cfg = cfg = apply_memory_format(cfg, model)
        optimizer = self.build_optimizer(cfg, model)
        processes = comm.get_world_size()
        loader = self.build_train_loader(cfg)
        loader.bad_images.on_new = self._note_bad_image
        self._trainer = TrainLoop(
            distribute(model, bf16_gradients=cfg.RETHINK.SPEED.BF16_GRADIENTS),
            loader,
            optimizer,
            seed=cfg.SEED,
            images_per_step=cfg.SOLVER.IMS_PER_BATCH,
            micro_batches=cfg.SOLVER.IMS_PER_BATCH // processes // micro_batch_size(cfg, processes),
            mixed_precision=cfg.SOLVER.AMP.ENABLED,
            precision=cfg.RETHINK.SPEED.PRECISION,
            guard=build_loss_guard(cfg, self._halve_learning_rate),
        )
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = RethinkCheckpointer(
            self.model,
            cfg.OUTPUT_DIR,
            keep=cfg.RETHINK.KEEP_CHECKPOINTS,
            trust_pickle=cfg.RETHINK.TRUST_PICKLE,
            on_failure=self._note_unwritten,
            trainer=weakref.proxy(self),
        )
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self.ended = ""
        self.register_hooks(self.build_hooks())

    @property
    def samples(self) -> int:
        """Images that all processes have trained on since the start of the run, every visit counted."""
        return self._trainer.samples

    @property
    def exposure(self) -> Exposure | None:
        """Images, instances and pixels that they have trained on; None where a resumed run does not tell."""
        return self._trainer.exposure

    def build_hooks(self) -> list[HookBase]:
        """In the order in which they run after every iteration."""
        cfg = self.cfg
        main = comm.is_main_process()
        self._interruption = interruption = Interruption(self.checkpointer)
        ret = [hooks.IterationTimer(), build_cascade_switch(cfg), hooks.LRScheduler()]
        if cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(self.model):
            # Changes the model, so before whatever saves or evaluates it. It has a loader of its own, so
            # that training sees the same images with and without it.
            loader = self.build_train_loader(cfg)
            ret.append(
                RepeatedPreciseBN(cfg.TEST.EVAL_PERIOD, self.model, loader, cfg.TEST.PRECISE_BN.NUM_ITER)
            )
        if main:
            ret.append(Checkpoints(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD))
        # After the checkpoint, which is there if the evaluation fails.
        evaluate = interruption.guard(tolerating_full_disks(self._evaluate))
        ret.append(Evaluation(cfg.TEST.EVAL_PERIOD, evaluate))
        # They see the evaluation's metrics.
        ret += build_watch_hooks(cfg, self.checkpointer)
        if cfg.TEST.AUG.ENABLED:
            build_tta_model(cfg, self.model)  # or the refusal would come when all is trained
            # At the end alone: it costs many times as much.
            ret.append(Evaluation(0, interruption.guard(tolerating_full_disks(self._evaluate_tta))))
        if main:
            ret.append(PromptWriter(self.build_writers, cfg.RETHINK.WATCH.LOG_PERIOD))
            ret.append(self._build_progress())
            ret.append(RunRecord(cfg))  # it counts what all this cost
        # The last: it ends the process.
        ret.append(interruption)
        return [hook for hook in ret if hook]

    def _build_progress(self) -> HookBase:
        writer = build_progress_writer(self.max_iter)
        on_terminal = isinstance(writer, ProgressBar)
        return hooks.PeriodicWriter([writer], 1 if on_terminal else self.cfg.RETHINK.WATCH.LOG_PERIOD)

    def _evaluate(self) -> dict[str, Any]:
        self._last_eval_results = self.test(self.cfg, self.model)
        return self._last_eval_results

    def _evaluate_tta(self) -> dict[str, Any]:
        return evaluate_tta(self.cfg, self.model, self.test)

    def build_writers(self) -> list[EventWriter]:
        """The host's metrics.json and TensorBoard events; progress on the screen has a period of its own."""
        host = [writer for writer in super().build_writers() if not isinstance(writer, CommonMetricPrinter)]
        return [*build_watch_writers(self.cfg), *host]  # TensorBoard's, the last, clears the images

    def train(self) -> dict[str, Any] | None:
        """Train to the end; the metrics of the last evaluation, None where there was none.

        The host's loop, which can also be ended by `stop`. Raises `UserError` while another process trains in
        the same folder, and where the last checkpoint cannot be written.
        """
        recipe = format_recipe(describe_recipe(self.cfg, comm.get_world_size()))
        if self.start_iter >= self.max_iter:
            logger.info("This run is finished: %d iterations. It is evaluated once more.", self.start_iter)
        else:
            logger.info("Training from iteration %d:\n%s", self.start_iter, recipe)
        main = comm.is_main_process()
        with only_run_in(Path(self.cfg.OUTPUT_DIR)) if main else contextlib.nullcontext():
            if main:
                write_config(self.cfg)
            self._run()
            self._finish_saving()
        return getattr(self, "_last_eval_results", None)

    def _run(self) -> None:
        self.iter = self.start_iter
        with EventStorage(self.start_iter) as self.storage:
            try:
                with worker_errors():
                    self._run_steps()
                self.ended = self.ended or "finished"
            except BaseException as error:
                self.ended = self._describe_end(error)
                raise
            finally:
                try:
                    self.after_train()
                finally:
                    self._interruption.release()  # also where another hook fails

    def _run_steps(self) -> None:
        missed = rewind(self)
        self.before_train()
        if missed is not None:
            evaluate_missed(self, missed)
        while self.iter < self.max_iter and not self.ended:
            self.before_step()
            self.run_step()
            self.after_step()
            self.iter += not self.ended

    def _describe_end(self, error: BaseException) -> str:
        if isinstance(error, RollBack):
            return "rolled back"
        if not isinstance(error, Exception):
            return "interrupted"
        if not isinstance(error, UserError):
            logger.exception("Training failed at iteration %d.", self.iter)
        return f"failed: {type(error).__name__}: {error}"

    def _halve_learning_rate(self) -> None:
        halve_learning_rate(self.optimizer, self.scheduler)

    def go_on_behind(self, roll_back: RollBack) -> None:
        """With the images behind those that made training go back to where this trainer starts."""
        self._trainer.go_on_behind(roll_back)

    def _finish_saving(self) -> None:
        """Wait for the last checkpoint; try once more where it could not be written."""
        self.checkpointer.wait()
        if self.checkpointer.failure:
            self.iter = min(self.iter, self.max_iter - 1)  # that it was saved after
            self.checkpointer.save("model_final", iteration=self.iter)
            self.checkpointer.wait()
        if self.checkpointer.failure:
            raise UserError(
                f"The last checkpoint could not be written to {self.cfg.OUTPUT_DIR!r}: "
                f"{self.checkpointer.failure}. Make room, and --resume from the one before it."
            )

    def _note_bad_image(self, bad: BadImage) -> None:
        record_incident(self.cfg.OUTPUT_DIR, kind="bad image", iteration=self.iter, **bad._asdict())

    def _note_unwritten(self, name: str, reason: str) -> None:
        record_incident(
            self.cfg.OUTPUT_DIR, kind="checkpoint not written", iteration=self.iter, file=name, reason=reason
        )

    def stop(self, reason: str) -> None:
        """End training after this iteration. All processes call it in the same one."""
        self.ended = f"stopped: {reason}"

    def state_dict(self) -> dict[str, Any]:
        """Iteration, hooks and optimizer, on both host versions."""
        return compat.trainer_state(self, super().state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Also of a checkpoint written by v0.6 itself, which has no optimizer state."""
        if compat.host_loads_optimizer() and "_trainer" in state_dict:
            super().load_state_dict(state_dict)
            return
        super(DefaultTrainer, self).load_state_dict(state_dict)
        if "_trainer" in state_dict:
            self._trainer.load_state_dict(state_dict["_trainer"])

    def resume_or_load(self, resume: bool = True) -> None:
        """As in the host, then the doctor's look at the model; what cannot train is a `UserError`."""
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if self.checkpointer.resumed:
            self.start_iter = self.iter + 1  # the checkpoint tells the iteration that it was saved after
        check_up(
            self.cfg,
            self.model,
            coverage=self.checkpointer.coverage,
            missing=self.checkpointer.missing,
            num_images=count_images(self.data_loader),
        )

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The host's model from `cfg`, on the device that MODEL.DEVICE "auto" means here.

        `cfg` itself keeps "auto", so that `config.yaml` serves another machine.
        """
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.DEVICE = pick_device(cfg.MODEL.DEVICE)
        model = super().build_model(cfg)
        if cfg.RETHINK.SPEED.CHECKPOINT_ACTIVATIONS:
            checkpoint_activations(model.backbone)
        if cfg.RETHINK.SPEED.FAST_ROI_ALIGN:
            use_fast_roi_align(model)
        if cfg.RETHINK.SPEED.FAST_CONV:
            use_fast_convolutions(model)
        return prepare_for(cfg.RETHINK.SPEED.PRECISION, model)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """The host's SGD, updating as RETHINK.SPEED.FUSED_SGD says."""
        optimizer = super().build_optimizer(cfg, model)
        return speed_up(optimizer) if cfg.RETHINK.SPEED.FUSED_SGD else plain_update(optimizer)

    @classmethod
    def test(
        cls, cfg: CfgNode, model: nn.Module, evaluators: list[DatasetEvaluator] | None = None
    ) -> dict[str, Any]:
        """As in the host, in the precision of training. Evaluators that can get masks in their boxes."""
        if evaluators is None:
            evaluators = [cls.build_evaluator(cfg, name) for name in cfg.DATASETS.TEST]
            ours = all(isinstance(evaluator, RethinkCOCOEvaluator) for evaluator in evaluators)
            if cfg.RETHINK.SPEED.BOX_MASKS and ours:
                model = with_box_masks(model)
        with autocast(next(model.parameters()).device, cfg.RETHINK.SPEED.PRECISION):
            return super().test(cfg, model, evaluators)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> TrainLoader:
        """The loader of this process, once the number of categories agrees with the model's."""
        loader = build_train_loader(cfg, build_mapper(cfg, is_train=True))
        check_categories(cfg, cfg.DATASETS.TRAIN)
        return loader

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> torch.utils.data.DataLoader:
        """The host's loader, once the number of categories agrees with the model's."""
        mapper = build_mapper(cfg, is_train=False)
        loader = build_detection_test_loader(cfg, dataset_name, mapper=mapper)
        check_categories(cfg, [dataset_name])
        loader = in_batches(loader, cfg.RETHINK.SPEED.TEST_BATCH)
        loader.worker_init_fn = ignore_signals  # which reach the whole group of processes
        return with_progress(loader, "evaluating")

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """The evaluator for the data set's type; its files go to OUTPUT_DIR/inference."""
        return build_evaluator(cfg, dataset_name)


def train(cfg: CfgNode, resume: bool = False) -> dict[str, Any] | None:
    """Train from MODEL.WEIGHTS, or with `resume` from the last checkpoint in OUTPUT_DIR; the last metrics.

    Where RETHINK.NUMERICS.POLICY rolls back, a new trainer goes on from the last checkpoint.
    """
    roll_back = None
    while True:
        again = resume or roll_back is not None
        trainer = Trainer(keep_memory_format(cfg) if again else cfg)
        trainer.resume_or_load(again)
        if roll_back:
            trainer.go_on_behind(roll_back)
        reason = stopped_before(cfg.OUTPUT_DIR) if trainer.checkpointer.resumed else ""
        if reason and cfg.RETHINK.WATCH.PATIENCE:
            words = "This run has stopped early: %s. It is evaluated; RETHINK.WATCH.PATIENCE 0 trains on."
            logger.info(words, reason)
            return Trainer.test(cfg, trainer.model)
        try:
            return trainer.train()
        except RollBack as error:
            trainer.checkpointer.wait()  # or the disk's speed would decide where this goes back to
            comm.synchronize()
            if cfg.SEED >= 0:
                seed_all_rng(cfg.SEED + comm.get_rank())  # as at the start: there may be no checkpoint yet
            roll_back = error.with_traceback(None)  # which would keep the old trainer in memory


def evaluate(cfg: CfgNode, resume: bool = False) -> dict[str, Any]:
    """Metrics of MODEL.WEIGHTS on DATASETS.TEST, or with `resume` of the last checkpoint in OUTPUT_DIR."""
    model = Trainer.build_model(cfg)
    checkpointer = RethinkCheckpointer(model, cfg.OUTPUT_DIR, trust_pickle=cfg.RETHINK.TRUST_PICKLE)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    results = Trainer.test(cfg, model)
    return {**results, **evaluate_tta(cfg, model, Trainer.test)} if cfg.TEST.AUG.ENABLED else results
