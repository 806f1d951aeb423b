"""Whole training steps, with loader, hooks and update: stock's trainer and ours on the same images."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage

from ...config import load_config
from ...data.datasets.toy import make_toy_dataset
from ..setup import pick_device
from ..trainer import Trainer
from .made import make_images, register_made
from .rows import STOCK, speed_row, time_by_turns, unmeasured_row
from .settings import Settings
from .stock import StockTrainer, stock_config

PLAIN, FAST = "ours, fp32", "ours, fast"
STOCK_AMP = "stock AMP"
_TOY = "toy/scratch_mask_rcnn_R_18_FPN_gn.yaml"
_LARGE = "scratch_1x.yaml"
_MADE_SET, _TOY_SET = "benchmark_made", "benchmark_toy"
_MADE_IMAGES = 24
_WARM_UP = 2
_TOLERANCE = 1e-3  # relative, of a loss: sums of another order
_GPU_BATCHES = (2, 4, 8, 16)


class Workload(NamedTuple):
    """A config, what it is called in the table, and how many steps are measured."""

    title: str
    config_file: Path
    images: int
    steps: int
    bars: dict[str, float]


def measure_train(settings: Settings) -> list[dict[str, Any]]:
    """Rows of training steps on this machine's device, and of what one image costs on a GPU."""
    device = pick_device("auto")
    if device == "cpu":
        rows = [_measure(settings, workload) for workload in _cpu_workloads(settings)]
        return [*rows, unmeasured_row("training step on a GPU", "this machine has no GPU")]
    rows = []
    for images in [settings.images_per_batch] if settings.images_per_batch else _GPU_BATCHES:
        config_file = settings.config_file or settings.root / "configs" / _LARGE
        title = f"training, {config_file.stem}, {images} images of 800 px, GPU"
        bars = {FAST: 2.5}
        rows.append(_measure(settings, Workload(title, config_file, images, settings.gpu_steps, bars)))
    return rows


def _cpu_workloads(settings: Settings) -> list[Workload]:
    images = settings.images_per_batch
    if settings.config_file:
        title = f"training, {settings.config_file.stem}"
        return [Workload(title, settings.config_file, images or 1, settings.large_steps, {})]
    configs = settings.root / "configs"
    return [
        Workload("training, toy config", configs / _TOY, images or 8, settings.toy_steps, {FAST: 1.7}),
        Workload(
            "training, R50-FPN GN, 800 px", configs / _LARGE, images or 1, settings.large_steps, {FAST: 1.6}
        ),
    ]


def _measure(settings: Settings, workload: Workload) -> dict[str, Any]:
    """A row of images per second. AssertionError where stock and ours do not compute the same losses."""
    data = _dataset(settings, workload)
    with ExitStack() as stack:
        trainers = {
            name: stack.enter_context(_started(name, settings, workload, data))
            for name in contestants(settings.stock)
        }
        same_start(trainers)
        losses = check_losses(trainers)
        memory = _PeakMemory(trainers)
        seconds = time_by_turns(
            {name: memory.watch(name, trainer.one_step) for name, trainer in trainers.items()},
            workload.steps,
            _WARM_UP,
        )
        timed = trainers.items() if torch.cuda.is_available() else ()  # it costs as many steps again
        parts = {name: time_parts(trainer, workload.steps) for name, trainer in timed}
    bars = dict(workload.bars) if settings.stock else {}
    facts = {"losses": losses, "peak_memory_gb": memory.peaks, "milliseconds_of_parts": parts}
    row = speed_row(workload.title, seconds, work=workload.images, unit="images/s", bars=bars, **facts)
    if STOCK_AMP in seconds and FAST in seconds:
        pairs = zip(seconds[STOCK_AMP], seconds[FAST], strict=True)
        row["ratio_to_stock_amp"] = statistics.median(a / b for a, b in pairs)
    return row


def contestants(stock: bool) -> list[str]:
    """Names: stock, on a GPU stock with fp16, ours as it is by default, ours with the overlays."""
    hosts = [STOCK, *[STOCK_AMP] * torch.cuda.is_available()] if stock else []
    return [*hosts, PLAIN, FAST]


def _dataset(settings: Settings, workload: Workload) -> str:
    """The name of a registered set for the workload, made once."""
    if workload.config_file.parent.name == "toy":
        root = settings.folder / "toy"
        make_toy_dataset(root, num_train=64, num_val=1, image_size=128, seed=0, num_workers=1)
        register_made(_TOY_SET, root / "train.json", root / "train")
        return _TOY_SET
    folder = settings.folder / "made"
    if not folder.exists():
        make_images(folder, _MADE_IMAGES)
    register_made(_MADE_SET, folder / "annotations.json", folder / "images")
    return _MADE_SET


def train_config(name: str, settings: Settings, config_file: Path, images: int, dataset: str) -> CfgNode:
    """The config of a contestant: one recipe for all, with the host's RPN, whose steps alone are measured."""
    output = settings.folder / "runs" / f"{config_file.stem} {images} {name}"
    output.mkdir(parents=True, exist_ok=True)
    values = {
        "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
        "DATASETS.TRAIN": f"('{dataset}',)",
        "DATASETS.TEST": f"('{dataset}',)",
        "SOLVER.IMS_PER_BATCH": images,
        "RETHINK.SCHEDULE": f"{100_000 * images} images",
        "SOLVER.CHECKPOINT_PERIOD": 1_000_000,
        "TEST.EVAL_PERIOD": 0,
        "DATALOADER.NUM_WORKERS": 8 if torch.cuda.is_available() else 0,
        "SEED": 7,
        "MODEL.DEVICE": pick_device("auto"),
        "OUTPUT_DIR": output,
    }
    opts = [str(word) for pair in values.items() for word in pair]
    overlays = settings.overlays if name == FAST else ()
    cfg = load_config(config_file, overlays, [*opts, *settings.opts])
    if name in (STOCK, STOCK_AMP):
        cfg = stock_config(cfg)
        cfg.SOLVER.AMP.ENABLED = name == STOCK_AMP
    return cfg


class Running:
    """A trainer between its before_train and after_train, whose steps are called one by one."""

    def __init__(self, trainer: DefaultTrainer):
        self.trainer, self._storage, self._step = trainer, EventStorage(0), 0
        self.is_ours = isinstance(trainer, Trainer)
        trainer.storage = self._storage
        trainer.iter = 0
        with self._storage:
            trainer.before_train()

    @property
    def model(self) -> torch.nn.Module:
        return self.trainer.model

    def one_step(self) -> None:
        """As in the host's `train`. On a GPU it returns when all of it is computed."""
        trainer = self.trainer
        with self._storage:
            trainer.iter = self._step
            trainer.before_step()
            trainer.run_step()
            trainer.after_step()
        self._step += 1
        _synchronize()

    def close(self) -> None:
        """Hooks end what they have begun; nothing is saved or evaluated."""
        with self._storage:
            if self.is_ours:
                self.trainer.ended = "interrupted"
                self.trainer.after_train()


@contextmanager
def _started(name: str, settings: Settings, workload: Workload, dataset: str) -> Iterator[Running]:
    cfg = train_config(name, settings, workload.config_file, workload.images, dataset)
    seed_all_rng(7)
    running = Running((StockTrainer if name in (STOCK, STOCK_AMP) else Trainer)(cfg))
    try:
        yield running
    finally:
        running.close()


def same_start(trainers: dict[str, Running]) -> None:
    """All models get the weights of ours, by name: none is left over and none is missing."""
    weights = trainers[PLAIN].model.state_dict()
    for trainer in trainers.values():
        if trainer is not trainers[PLAIN]:
            trainer.model.load_state_dict(weights, strict=True)


def check_losses(trainers: dict[str, Running]) -> dict[str, dict[str, float]]:
    """The losses of each on one batch. AssertionError where stock's and those of ours in fp32 differ."""
    batch = next(iter(trainers[PLAIN].trainer.data_loader))
    losses = {name: _losses(trainer.model, batch) for name, trainer in trainers.items()}
    if STOCK in losses:
        stock, ours = losses[STOCK], losses[PLAIN]
        assert stock.keys() == ours.keys(), f"losses of stock {sorted(stock)}, of ours {sorted(ours)}"
        for name, value in stock.items():
            assert abs(ours[name] - value) <= _TOLERANCE * max(abs(value), 1e-3), (name, value, ours[name])
    return losses


@torch.no_grad()
def _losses(model: torch.nn.Module, batch: list[dict]) -> dict[str, float]:
    seed_all_rng(7)  # the samples of RPN and RoI heads
    with EventStorage(0):
        losses = model([dict(record) for record in batch])
    return {name: float(value) for name, value in losses.items()}


class _PeakMemory:
    """Of each contestant on a GPU, in GB (10^9 bytes): its own state and what a step of it adds."""

    def __init__(self, trainers: dict[str, Running]):
        self.peaks: dict[str, float] = {}
        self._own = {name: _state_bytes(trainer) for name, trainer in trainers.items()}

    def watch(self, name: str, step: Callable[[], None]) -> Callable[[], None]:
        """`step`, after which the peak of this contestant is known."""
        if not torch.cuda.is_available():
            return step

        def watched() -> None:
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            step()
            peak = torch.cuda.max_memory_allocated() - before + self._own[name]
            self.peaks[name] = max(self.peaks.get(name, 0.0), peak / 1e9)

        return watched


def _state_bytes(trainer: Running) -> int:
    """Weights, and as much again for the momentum."""
    return 2 * sum(weight.numel() * weight.element_size() for weight in trainer.model.parameters())


def time_parts(trainer: Running, steps: int) -> dict[str, float]:
    """Milliseconds of the forward pass in backbone, RPN and RoI heads; medians over `steps` steps."""
    model = trainer.model
    parts = {name: getattr(model, name) for name in ("backbone", "proposal_generator", "roi_heads")}
    clocks = {name: _Clock() for name in parts}
    handles = [
        handle
        for name, part in parts.items()
        for handle in (
            part.register_forward_pre_hook(lambda *_, clock=clocks[name]: clock.start()),
            part.register_forward_hook(lambda *_, clock=clocks[name]: clock.stop()),
        )
    ]
    whole = _Clock()
    for _ in range(steps):
        whole.start()
        trainer.one_step()
        whole.stop()
    for handle in handles:
        handle.remove()
    ret = {f"forward of {name}": clock.median() for name, clock in clocks.items()}
    ret["loader, backward and the rest"] = whole.median() - sum(ret.values())
    return ret


class _Clock:
    """Milliseconds between start and stop, once the device has done what stood before."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def start(self) -> None:
        _synchronize()
        self._begin = _now()

    def stop(self) -> None:
        _synchronize()
        self._times.append(_now() - self._begin)

    def median(self) -> float:
        return statistics.median(self._times)


def _now() -> float:
    return 1000 * time.perf_counter()


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
