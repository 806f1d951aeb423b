"""The evaluator of a data set, by the `evaluator_type` of its metadata."""

import importlib.util
import logging
import os
from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import COCOPanopticEvaluator, DatasetEvaluator, DatasetEvaluators, SemSegEvaluator

from ..errors import UserError
from .classification import ClassificationEvaluator
from .coco import RethinkCOCOEvaluator
from .pascal_voc import RethinkPascalVOCEvaluator

logger = logging.getLogger(__name__)

BOXES_ONLY = ("RetinaNet", "RethinkRetinaNet")


def _coco(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    rcnn = cfg.MODEL.META_ARCHITECTURE not in BOXES_ONLY
    wanted = {"bbox": True, "segm": rcnn and cfg.MODEL.MASK_ON, "keypoints": rcnn and cfg.MODEL.KEYPOINT_ON}
    return RethinkCOCOEvaluator(
        name,
        tasks=tuple(task for task, on in wanted.items() if on),
        output_dir=folder,
        kpt_oks_sigmas=cfg.TEST.KEYPOINT_OKS_SIGMAS,
        ap_by=cfg.RETHINK.SPEED.COCO_EVAL,
    )


def _is_subset(name: str) -> bool:
    """Whether only a part of the images is loaded. The ids are known after loading, the spec before."""
    metadata = MetadataCatalog.get(name)
    return metadata.get("subset") is not None or metadata.get("subset_image_ids") is not None


def _pascal_voc(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    if _is_subset(name):
        raise UserError(
            f"Dataset {name!r} is a subset, and Pascal VOC evaluation counts the whole split. "
            "Set DATASETS.TEST to the whole one."
        )
    return RethinkPascalVOCEvaluator(name)


def _sem_seg(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    return SemSegEvaluator(name, distributed=True, output_dir=folder)


def _panoptic(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        return _sem_seg(cfg, name, folder)
    evaluators = [_coco(cfg, name, folder)]
    if cfg.MODEL.META_ARCHITECTURE == "PanopticFPN":
        evaluators.append(_sem_seg(cfg, name, folder))
        has_json = MetadataCatalog.get(name).get("panoptic_json")
        if importlib.util.find_spec("panopticapi") and has_json and not _is_subset(name):
            evaluators.append(COCOPanopticEvaluator(name, folder))
        else:  # panopticapi wants a prediction for every image of the json
            logger.info("PQ of %s is left out: it needs panopticapi, a panoptic json, no subset.", name)
    return DatasetEvaluators(evaluators)


def _classification(cfg: CfgNode, name: str, folder: str) -> DatasetEvaluator:
    return ClassificationEvaluator()


EVALUATORS: dict[str, Callable[[CfgNode, str, str], DatasetEvaluator]] = {
    "classification": _classification,
    "coco": _coco,
    "coco_panoptic_seg": _panoptic,
    "pascal_voc": _pascal_voc,
    "sem_seg": _sem_seg,
}


def build_evaluator(cfg: CfgNode, dataset_name: str, output_dir: str | None = None) -> DatasetEvaluator:
    """The evaluator of a registered dataset, for the model's tasks. Files go to <OUTPUT_DIR>/inference."""
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in EVALUATORS:
        raise UserError(
            f"Dataset {dataset_name!r} has evaluator_type {kind!r}. Choose from {sorted(EVALUATORS)}; "
            "register_coco_instances sets 'coco'."
        )
    return EVALUATORS[kind](cfg, dataset_name, output_dir or os.path.join(cfg.OUTPUT_DIR, "inference"))
