"""Whole training steps, with loader, hooks and update: stock's trainer and ours on the same images."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode

from ...config import load_config
from ...data.datasets.toy import make_toy_dataset
from ..precision import settle_precision
from ..setup import pick_device
from .contestants import Contestant, started
from .made import make_images
from .rows import STOCK, by_turns, speed_row, unmeasured_row
from .settings import Settings
from .stock import stock_config

PLAIN, FAST = "ours, fp32", "ours, fast"
STOCK_AMP = "stock AMP"
_HOSTS = (STOCK, STOCK_AMP)
_TOY = "toy/scratch_mask_rcnn_R_18_FPN_gn.yaml"
_LARGE = "scratch_1x.yaml"
_MADE_SET, _TOY_SET = "benchmark_made", "benchmark_toy"
_MADE_IMAGES = 24
_WARM_UP = 1
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
        rows = [row for workload in _cpu_workloads(settings) for row in _measure(settings, workload)]
        return [*rows, unmeasured_row("training step on a GPU", "this machine has no GPU")]
    rows = []
    for images in [settings.images_per_batch] if settings.images_per_batch else _GPU_BATCHES:
        config_file = settings.config_file or settings.root / "configs" / _LARGE
        title = f"training, {config_file.stem}, {images} images of 800 px, GPU"
        bars = {FAST: 2.5}
        rows += _measure(settings, Workload(title, config_file, images, settings.gpu_steps, bars))
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


def _measure(settings: Settings, workload: Workload) -> list[dict[str, Any]]:
    """A row of images per second, on a GPU another beside stock's fp16.

    AssertionError where stock and ours in fp32 do not compute the same losses.
    """
    configs = {
        name: (train_config(name, settings, workload, _dataset_name(workload)), name in _HOSTS)
        for name in contestants(settings.stock)
    }
    with started(configs, (_dataset_name(workload), *_make_data(settings, workload))) as running:
        losses = check_losses(running, settings.folder / "start.pth")
        seconds = by_turns(
            {name: partial(contestant.call, "step") for name, contestant in running.items()},
            workload.steps,
            _WARM_UP,
            settings.train_budget,
        )
        facts = {
            "losses": losses,
            "peak_memory_gb": _call_all(running, "peak_memory_gb"),
            "speed": _call_all(running, "speed"),
        }
        if torch.cuda.is_available():  # it costs as many steps again
            facts["milliseconds_of_parts"] = _call_all(running, "parts", workload.steps)
    bars = dict(workload.bars) if settings.stock else {}
    size = {"work": workload.images, "unit": "images/s"}
    of_amp = seconds.pop(STOCK_AMP, None)
    rows = [speed_row(workload.title, seconds, bars=bars, **size, **facts)]
    if of_amp is not None:
        pair = {STOCK: of_amp, FAST: seconds[FAST]}
        rows.append(speed_row(f"{workload.title}, stock in fp16", pair, bars={FAST: 1.5}, **size))
    return rows


def _call_all(running: dict[str, Contestant], method: str, *args: Any) -> dict[str, Any]:
    return {name: contestant.call(method, *args) for name, contestant in running.items()}


def contestants(stock: bool) -> list[str]:
    """Names: stock, on a GPU stock with fp16, ours as it is by default, ours with the overlays."""
    hosts = [STOCK, *[STOCK_AMP] * torch.cuda.is_available()] if stock else []
    return [*hosts, PLAIN, FAST]


def _dataset_name(workload: Workload) -> str:
    return _TOY_SET if workload.config_file.parent.name == "toy" else _MADE_SET


def _make_data(settings: Settings, workload: Workload) -> tuple[Path, Path]:
    """Annotations and images for the workload, made once."""
    if _dataset_name(workload) == _TOY_SET:
        root = settings.folder / "toy"
        make_toy_dataset(root, num_train=64, num_val=1, image_size=128, seed=0, num_workers=1)
        return root / "train.json", root / "train"
    folder = settings.folder / "made"
    if not folder.exists():
        make_images(folder, _MADE_IMAGES)
    return folder / "annotations.json", folder / "images"


def train_config(name: str, settings: Settings, workload: Workload, dataset: str) -> CfgNode:
    """The config of a contestant: one recipe for all, with the host's RPN, whose steps alone are measured."""
    images, config_file = workload.images, workload.config_file
    output = settings.folder / "runs" / f"{config_file.stem} {images} {name}"
    output.mkdir(parents=True, exist_ok=True)
    device = pick_device("auto")
    values = {
        "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
        "DATASETS.TRAIN": f"('{dataset}',)",
        "DATASETS.TEST": f"('{dataset}',)",
        "SOLVER.IMS_PER_BATCH": images,
        "RETHINK.SCHEDULE": f"{100_000 * images} images",
        "SOLVER.CHECKPOINT_PERIOD": 1_000_000,
        "TEST.EVAL_PERIOD": 0,
        "DATALOADER.NUM_WORKERS": 8 if device == "cuda" else 0,
        "SEED": 7,
        "MODEL.DEVICE": device,
        "OUTPUT_DIR": output,
    }
    opts = [str(word) for pair in values.items() for word in pair]
    overlays = settings.overlays if name == FAST else ()
    cfg = load_config(config_file, overlays, [*opts, *settings.opts])
    settle_precision(cfg, device)
    if name in _HOSTS:
        cfg = stock_config(cfg)
        cfg.SOLVER.AMP.ENABLED = name == STOCK_AMP
    return cfg


def check_losses(running: dict[str, Contestant], file: Path) -> dict[str, dict[str, float]]:
    """The losses of each on one batch, from the weights of ours, with which all go on.

    Both are in `file` for a while. AssertionError where the losses of stock and of ours in fp32 differ.
    """
    running[PLAIN].call("write", file)
    losses = _call_all(running, "losses", file)
    file.unlink()
    if STOCK in losses:
        compare_losses(losses[STOCK], losses[PLAIN])
    return losses


def compare_losses(stock: dict[str, float], ours: dict[str, float]) -> None:
    """AssertionError where they are not the same losses."""
    assert stock.keys() == ours.keys(), f"losses of stock {sorted(stock)}, of ours {sorted(ours)}"
    for name, value in stock.items():
        assert abs(ours[name] - value) <= _TOLERANCE * max(abs(value), 1e-3), (name, value, ours[name])
