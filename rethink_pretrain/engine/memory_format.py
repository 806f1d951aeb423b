"""NCHW or NHWC: how images and weights lie in memory, and which of the two is faster here."""

import copy
import logging
import statistics
import time

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from .changes import written_keys
from .precision import autocast

logger = logging.getLogger(__name__)

_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
_WARMUP, _STEPS = 1, 3
_BUDGET = 20.0  # seconds, after which the steps that are timed have to do


def keep_memory_format(cfg: CfgNode) -> CfgNode:
    """For "auto", `cfg` with what the run in OUTPUT_DIR has found before; else `cfg` itself."""
    if cfg.RETHINK.SPEED.MEMORY_FORMAT != "auto":
        return cfg
    found = written_keys(cfg.OUTPUT_DIR).get("RETHINK.SPEED.MEMORY_FORMAT")
    return _with_format(cfg, found) if found in _FORMATS else cfg


def apply_memory_format(cfg: CfgNode, model: nn.Module) -> CfgNode:
    """Lay `model` out as `cfg` says; `cfg` with the choice in the place of "auto". All processes call it."""
    if cfg.RETHINK.SPEED.MEMORY_FORMAT == "auto":
        size = (min(cfg.INPUT.MIN_SIZE_TRAIN), cfg.INPUT.MAX_SIZE_TRAIN)
        shape = (len(cfg.MODEL.PIXEL_MEAN), *size)
        cfg = _with_format(cfg, choose_memory_format(model.backbone, shape, cfg.RETHINK.SPEED.PRECISION))
    model.to(memory_format=_FORMATS[cfg.RETHINK.SPEED.MEMORY_FORMAT])
    return cfg


def choose_memory_format(backbone: nn.Module, shape: tuple[int, int, int], precision: str) -> str:
    """The faster one for forward and backward of `backbone` on an image of `shape` (C, H, W), in px.

    Both take turns, in a copy of `backbone`. The choice is the main process's; all processes call it.
    """
    seconds: dict[str, list[float]] = {name: [] for name in _FORMATS}
    if comm.is_main_process():
        start = time.perf_counter()
        twin = copy.deepcopy(backbone).eval()  # in training, SyncBN would wait for the other processes
        for step in range(_WARMUP + _STEPS):
            for name, times in seconds.items():
                twin.to(memory_format=_FORMATS[name])
                times.append(_time_pass(twin, shape, precision))
            if step >= _WARMUP and time.perf_counter() - start > _BUDGET:
                break
    medians = comm.all_gather({name: statistics.median(t[_WARMUP:]) for name, t in seconds.items() if t})[0]
    choice = min(medians, key=medians.get)
    logger.info(
        "RETHINK.SPEED.MEMORY_FORMAT %s: a pass of the backbone takes %s.",
        *(choice, ", ".join(f"{value:.3f} s in {name}" for name, value in medians.items())),
    )
    return choice


def _time_pass(backbone: nn.Module, shape: tuple[int, int, int], precision: str) -> float:
    """Seconds."""
    device = next(backbone.parameters()).device
    divisor = max(getattr(backbone, "size_divisibility", 0), 32)
    height, width = (-(-side // divisor) * divisor for side in shape[1:])
    image = torch.full((1, shape[0], height, width), 0.5, device=device)
    _wait_for(device)
    start = time.perf_counter()
    with autocast(device, precision):
        maps = backbone(image)
    total = sum(features.float().mean() for features in maps.values())
    if total.requires_grad:  # as it does not where all of the backbone is frozen
        total.backward()
    _wait_for(device)
    return time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _with_format(cfg: CfgNode, name: str) -> CfgNode:
    cfg = cfg.clone()
    cfg.defrost()
    cfg.RETHINK.SPEED.MEMORY_FORMAT = name
    cfg.freeze()
    return cfg
