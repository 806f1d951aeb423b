"""Pre-training of a detector's backbone as a classifier: the weights, and what they cost."""

import logging
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import build_backbone
from detectron2.utils import comm

from ..checkpoint.convert import write_converted
from ..checkpoint.reading import read_weights
from ..data import CLASSIFIER
from ..errors import UserError
from .export_model import find_checkpoint
from .run_record import read_run_record
from .trainer import train

logger = logging.getLogger(__name__)

FILE_NAME = "backbone.pth"  # in OUTPUT_DIR


def pretrain(cfg: CfgNode, resume: bool = False) -> dict[str, Any] | None:
    """Train the classifier of `cfg`, then write its backbone for MODEL.WEIGHTS; the last metrics.

    Every process calls it. The file has the names of a detector's parameters, and an entry "pretraining" that
    says what it took: "images", "instances", "pixels" and "recipe".
    """
    metrics = train(cfg, resume)
    if comm.is_main_process():
        path = write_backbone(cfg, metrics or {})
        logger.info("The backbone is in %s. A detector starts from it with MODEL.WEIGHTS %s.", path, path)
    return metrics


def check_is_classifier(cfg: CfgNode) -> None:
    """Raises `UserError` for a config of a detector."""
    if cfg.MODEL.META_ARCHITECTURE != CLASSIFIER:
        raise UserError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}, which is no classifier. Add "
            "--overlay classifier to a detector's config, or take configs/extra/pretrain_R50_gn.yaml."
        )


def write_backbone(cfg: CfgNode, metrics: dict[str, Any]) -> Path:
    """OUTPUT_DIR/backbone.pth, from the last checkpoint there."""
    output = Path(cfg.OUTPUT_DIR)
    # Below an FPN, the detector calls it bottom_up.
    prefix = "backbone.bottom_up." if hasattr(build_backbone(cfg), "bottom_up") else "backbone."
    weights = read_weights(find_checkpoint(output))["model"]
    backbone = {
        prefix + name.removeprefix("backbone."): value
        for name, value in weights.items()
        if name.startswith("backbone.")
    }
    path = output / FILE_NAME
    write_converted(path, backbone, pretraining=_describe(cfg, output, metrics))
    return path


def _describe(cfg: CfgNode, output: Path, metrics: dict[str, Any]) -> dict[str, Any]:
    sessions = read_run_record(output / "run.json")["sessions"]
    counts = sessions[-1].get("samples", {}) if sessions else {}
    node, top1 = cfg.RETHINK.CLASSIFIER, metrics.get("classification", {}).get("top1")
    recipe = (
        f"classifier of {node.NUM_CLASSES} classes on {cfg.RETHINK.IMAGES_PER_EPOCH} images, "
        f"{cfg.SOLVER.MAX_ITER} iterations of {cfg.SOLVER.IMS_PER_BATCH} crops of {node.IMAGE_SIZE} px"
    )
    return {**counts, "recipe": recipe + (f", top-1 {top1:.1f} %" if top1 is not None else "")}
