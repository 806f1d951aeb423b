"""Seconds per iteration of a config on this machine, by a few training steps that leave nothing behind."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage

from ..errors import UserError
from ..files import write_json
from ..progress import progress
from .memory_format import apply_memory_format
from .precision import settle_precision
from .setup import pick_device, register_datasets
from .train_loop import TrainLoop
from .trainer import Trainer

SAMPLE = 64  # of the user's images
_HARMLESS_LR = 1e-9  # random weights cannot diverge, and a step takes as long as with any other rate

Loader = Any  # what `TrainLoop` takes batches from


class Probe(NamedTuple):
    """seconds: the median of `steps` iterations of `batch` images on `device`, which saw `data`.

    unit: "GPU" or "CPU".
    """

    seconds: float
    steps: int
    batch: int
    device: str
    data: str
    unit: str


class RandomImages:
    """Endless batches of the same `batch` random images with `objects` boxes (and masks) each.

    Raises `UserError` for a model that learns from more than that.
    """

    def __init__(self, cfg: CfgNode, batch: int, size: tuple[int, int], objects: int):
        """`size`: height and width in px, after resizing."""
        if cfg.MODEL.KEYPOINT_ON or cfg.MODEL.META_ARCHITECTURE in ("PanopticFPN", "SemanticSegmentor"):
            raise UserError(
                "Random images have boxes and masks alone: give --train-images to probe this config."
            )
        self.position = 0
        self._records = [_random_record(cfg, size, objects, number) for number in range(batch)]
        self.description = f"random images of {size[1]} x {size[0]} px"

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        while True:
            yield [dict(record) for record in self._records]


def _random_record(cfg: CfgNode, size: tuple[int, int], objects: int, seed: int) -> dict[str, Any]:
    """As the mapper makes them; boxes have a twentieth to a half of each side."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(cfg.MODEL.PIXEL_MEAN), *size)
    extent = torch.tensor([size[1], size[0]])
    sides = (0.05 + 0.45 * torch.rand(objects, 2, generator=generator)) * extent
    corners = torch.rand(objects, 2, generator=generator) * (extent - sides)
    boxes = torch.cat([corners, corners + sides], dim=1)
    instances = Instances(size, gt_boxes=Boxes(boxes))
    instances.gt_classes = torch.zeros(objects, dtype=torch.int64)
    if cfg.MODEL.MASK_ON:
        instances.gt_masks = PolygonMasks([[box[[0, 1, 2, 1, 2, 3, 0, 3]].numpy()] for box in boxes])
    image = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    return {"image": image, "instances": instances, "height": size[0], "width": size[1]}


@contextlib.contextmanager
def own_images(
    cfg: CfgNode, document: dict[str, Any], images: str | Path, batch: int
) -> Iterator[tuple[CfgNode, Loader]]:
    """`cfg` fitted to `document` (COCO's form), and a loader of up to `SAMPLE` of its `images`, a folder.

    What this writes is gone afterwards. Raises `UserError` for data that cannot be trained on.
    """
    with tempfile.TemporaryDirectory() as folder:
        cfg = _for_steps(cfg, batch)
        cfg.OUTPUT_DIR = folder
        sample, path = _sample(document), Path(folder, "sample.json")
        write_json(path, sample, indent=None)
        for split in ("TRAIN", "VAL"):
            cfg.RETHINK.DATA[f"{split}_JSON"] = str(path)
            cfg.RETHINK.DATA[f"{split}_IMAGES"] = str(images)
        register_datasets(cfg)
        loader = Trainer.build_train_loader(cfg)
        loader.description = f"{len(sample['images'])} of your images"
        yield cfg, loader


def _sample(document: dict[str, Any]) -> dict[str, Any]:
    """`SAMPLE` of the images with objects, from all over the list."""
    # As text, because some write 7 here and "7" there, which training mends.
    shown = {str(a["image_id"]) for a in document["annotations"] if not a.get("iscrowd")}
    images = [image for image in document["images"] if str(image["id"]) in shown]
    images = images[:: max(1, len(images) // SAMPLE)][:SAMPLE]
    chosen = {str(image["id"]) for image in images}
    annotations = [a for a in document["annotations"] if str(a["image_id"]) in chosen]
    return {"images": images, "annotations": annotations, "categories": document["categories"]}


def probe(
    cfg: CfgNode, loader: Loader, batch: int, *, warmup: int = 2, steps: int = 10, limit: float = 120.0
) -> Probe:
    """Train the model of `cfg` from random weights for `warmup` + `steps` iterations of `batch` images.

    After `limit` seconds no further step is begun, but one is measured in any case, behind one of warm-up.
    Raises `UserError` where the memory of the GPU does not suffice.
    """
    cfg = _for_steps(cfg, batch)
    device = pick_device(cfg.MODEL.DEVICE)
    begun, times = time.perf_counter(), []
    try:
        loop = _build_loop(cfg, loader, batch)
        with EventStorage(0), progress("Probing", warmup + steps) as task:
            for loop.iter in range(warmup + steps):
                times.append(_time_step(loop, device))
                task.advance(status=f"{times[-1]:.2f} s per iteration")
                if time.perf_counter() - begun > limit and len(times) > min(warmup, 1):
                    break
    except torch.cuda.OutOfMemoryError:
        raise UserError(
            f"The GPU's memory does not suffice for {batch} images: lower --images-per-gpu."
        ) from None
    measured = times[warmup:] or times[-1:]
    unit = "GPU" if device.startswith("cuda") else "CPU"
    seconds = statistics.median(measured)
    return Probe(seconds, len(measured), batch, _name(device), loader.description, unit)


def _for_steps(cfg: CfgNode, batch: int) -> CfgNode:
    """A copy whose steps take `batch` images and leave the weights as they are."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.RETHINK.SCHEDULE = ""  # or the batch would have to fit it
    cfg.SEED = max(cfg.SEED, 0)
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR, cfg.RETHINK.MICRO_BATCH = batch, _HARMLESS_LR, 0
    return cfg


def _build_loop(cfg: CfgNode, loader: Loader, batch: int) -> TrainLoop:
    settle_precision(cfg, pick_device(cfg.MODEL.DEVICE))
    model = Trainer.build_model(cfg)
    model.train()
    cfg = apply_memory_format(cfg, model)
    optimizer = Trainer.build_optimizer(cfg, model)
    return TrainLoop(
        model,
        loader,
        optimizer,
        seed=0,
        images_per_step=batch,
        mixed_precision=cfg.SOLVER.AMP.ENABLED,
        precision=cfg.RETHINK.SPEED.PRECISION,
    )


def _time_step(loop: TrainLoop, device: str) -> float:
    start = time.perf_counter()
    loop.run_step()
    if device.startswith("cuda"):
        torch.cuda.synchronize()  # it works on while Python goes ahead
    return time.perf_counter() - start


def _name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"the CPU with {threads} thread{'s' * (threads > 1)}"
