"""Images per second of one core: the host's training loader and ours on the same files."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, DatasetMapper, build_detection_train_loader

from ...config import load_config
from ...data import build_mapper, build_train_loader
from .made import HEIGHT, OBJECTS, WIDTH, make_images, register_made
from .rows import STOCK, speed_row, time_by_turns
from .settings import Settings

_SET = "benchmark_loader"
_SHORT_SIDE = 800  # px
_ADJACENT = 0.999  # of all values are within one grey level of the host's


def measure_loader(settings: Settings) -> list[dict[str, Any]]:
    """A row: JPEG files to 800 px with boxes and polygons, without worker processes, on one thread."""
    folder = settings.folder / "loader"
    annotations, images = make_images(folder, settings.loader_images)
    register_made(_SET, annotations, images)
    cfg = _config(settings)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        facts = {"largest_difference": check_samples(cfg, settings.loader_images)} if settings.stock else {}
        seconds = time_by_turns(_contestants(cfg, settings), settings.loader_rounds)
    finally:
        torch.set_num_threads(threads)
    title = f"loader, {WIDTH}x{HEIGHT} JPEG to {_SHORT_SIDE} px, {OBJECTS} polygons, one core"
    bars = {"ours": 2.5} if settings.stock else {}
    return [speed_row(title, seconds, work=settings.loader_images, unit="images/s", bars=bars, **facts)]


def _config(settings: Settings) -> CfgNode:
    opts = ["DATASETS.TRAIN", f"('{_SET}',)", "DATALOADER.NUM_WORKERS", "0", "SOLVER.IMS_PER_BATCH", "1"]
    return load_config(
        settings.root / "configs" / "scratch_1x.yaml", (), [*opts, "SEED", "7", "MODEL.DEVICE", "cpu"]
    )


def _contestants(cfg: CfgNode, settings: Settings) -> dict[str, Callable[[], Any]]:
    loaders: dict[str, Iterator] = {}
    if settings.stock:
        mapper = DatasetMapper(cfg, is_train=True)
        loaders[STOCK] = iter(build_detection_train_loader(cfg, mapper=mapper))
    loaders["ours"] = iter(build_train_loader(cfg, build_mapper(cfg, is_train=True)))
    return {
        name: lambda batches=batches: list(itertools.islice(batches, settings.loader_images))
        for name, batches in loaders.items()
    }


def check_samples(cfg: CfgNode, images: int) -> dict[str, float]:
    """The largest differences of pixels (grey levels) and boxes (px). AssertionError where they differ."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.RANDOM_FLIP = "none"
    theirs, ours = DatasetMapper(cfg, is_train=True), build_mapper(cfg, is_train=True)
    largest = {"pixels": 0.0, "boxes": 0.0}
    for record in DatasetCatalog.get(_SET)[:images]:
        a, b = theirs(record), ours(record)
        assert a["image"].shape == b["image"].shape, (a["image"].shape, b["image"].shape)
        pixels = np.abs(a["image"].numpy().astype(int) - b["image"].numpy().astype(int))
        assert (pixels <= 1).mean() >= _ADJACENT, f"{record['file_name']}: other pixels than the host's"
        largest["pixels"] = max(largest["pixels"], float(pixels.max()))
        assert torch.equal(a["instances"].gt_classes, b["instances"].gt_classes), record["file_name"]
        boxes = (a["instances"].gt_boxes.tensor - b["instances"].gt_boxes.tensor).abs()
        largest["boxes"] = max(largest["boxes"], float(boxes.max()))
        assert largest["boxes"] < 1e-2, f"{record['file_name']}: other boxes than the host's"
    return largest
