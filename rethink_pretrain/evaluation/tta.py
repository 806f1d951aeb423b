"""Test-time augmentation of R-CNN models with boxes, masks and keypoints (TEST.AUG).

Cost: every picture passes the backbone twice per augmentation (boxes, then masks and keypoints).
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import create_keypoint_hflip_indices
from detectron2.modeling import GeneralizedRCNN, GeneralizedRCNNWithTTA, PanopticFPN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.structures.keypoints import heatmaps_to_keypoints
from fvcore.transforms import HFlipTransform
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import UserError
from .build import build_evaluator


def vote_boxes(
    kept: torch.Tensor,
    kept_classes: torch.Tensor,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    classes: torch.Tensor,
    iou: float,
) -> torch.Tensor:
    """Each of `kept` (N, 4) as the score-weighted mean of its class's `boxes` (M, 4) with IoU >= `iou`."""
    near = (pairwise_iou(Boxes(kept), Boxes(boxes)) >= iou) & (kept_classes[:, None] == classes[None])
    weights = near * scores[None]
    total = weights.sum(dim=1, keepdim=True)
    return torch.where(total > 0, weights @ boxes / total.clamp(min=1e-12), kept)


def mean_heatmaps(heatmaps: list[torch.Tensor], flipped: list[bool], flip_indices: list[int]) -> torch.Tensor:
    """Mean of keypoint logits (N, K, H, W) over augmentations, mirrored ones flipped back first."""
    back = [
        maps.flip(dims=[3])[:, flip_indices] if flip else maps
        for maps, flip in zip(heatmaps, flipped, strict=True)
    ]
    return torch.stack(back).mean(dim=0)


class RethinkTTA(GeneralizedRCNNWithTTA):
    """The host's augmented inference, with keypoints (mean of the heatmaps) and box voting."""

    def __init__(self, cfg: CfgNode, model: nn.Module, tta_mapper=None, batch_size: int = 3):
        host_cfg = cfg.clone()
        host_cfg.defrost()
        host_cfg.MODEL.KEYPOINT_ON = False  # the host refuses keypoints; they are merged here
        super().__init__(host_cfg, model, tta_mapper, batch_size)
        self.vote_iou = cfg.RETHINK.TTA_BOX_VOTE_IOU
        self.keypoint_on = cfg.MODEL.KEYPOINT_ON
        self.flip_indices = []
        if self.keypoint_on:
            self.flip_indices = [int(i) for i in create_keypoint_hflip_indices(list(cfg.DATASETS.TEST))]
        self.train(self.model.training)  # inference_context restores the mode of this wrapper

    @contextmanager
    def _turn_off_roi_heads(self, attrs: list[str]) -> Iterator[None]:
        """As the host's, and the heads come back after an exception too."""
        heads = self.model.roi_heads
        old = {attr: getattr(heads, attr) for attr in attrs if hasattr(heads, attr)}
        try:
            for attr in old:
                setattr(heads, attr, False)
            yield
        finally:
            for attr, value in old.items():
                setattr(heads, attr, value)

    def _merge_detections(self, all_boxes, all_scores, all_classes, shape_hw) -> Instances:
        merged = super()._merge_detections(all_boxes, all_scores, all_classes, shape_hw)
        if self.vote_iou > 0 and len(merged):
            scores, classes = torch.stack(list(all_scores)), torch.stack(list(all_classes))
            kept = merged.pred_boxes.tensor
            voted = Boxes(vote_boxes(kept, merged.pred_classes, all_boxes, scores, classes, self.vote_iou))
            voted.clip(shape_hw)
            merged.pred_boxes = voted
        return merged

    def _inference_one_image(self, input: dict) -> dict:
        if not self.keypoint_on:
            return super()._inference_one_image(input)
        shape = (input["height"], input["width"])
        inputs, transforms = self._get_augmented_inputs(input)
        with self._turn_off_roi_heads(["mask_on", "keypoint_on"]):
            candidates = self._get_augmented_boxes(inputs, transforms)
        merged = self._merge_detections(*candidates, shape)
        outputs = self._batch_inference(inputs, self._rescale_detected_boxes(inputs, merged, transforms))
        if self.cfg.MODEL.MASK_ON:
            merged.pred_masks = self._reduce_pred_masks(outputs, transforms)
        flipped = [any(isinstance(t, HFlipTransform) for t in tfm.transforms) for tfm in transforms]
        maps = mean_heatmaps([o.pred_keypoint_heatmaps for o in outputs], flipped, self.flip_indices)
        # (x, y, logit, probability); the host's predictions have x, y and the probability
        merged.pred_keypoints = heatmaps_to_keypoints(maps, merged.pred_boxes.tensor)[:, :, [0, 1, 3]]
        return {"instances": detector_postprocess(merged, *shape)}


def build_tta_model(cfg: CfgNode, model: nn.Module) -> RethinkTTA:
    """`model` with TEST.AUG around it. Raises `UserError` for models without R-CNN heads."""
    if isinstance(model, DistributedDataParallel):
        model = model.module
    # The host's PanopticFPN is a GeneralizedRCNN that takes no given boxes.
    if not isinstance(model, GeneralizedRCNN) or isinstance(model, PanopticFPN):
        raise UserError(
            f"TEST.AUG.ENABLED works for GeneralizedRCNN, not for {type(model).__name__}. Set it to False."
        )
    if cfg.MODEL.KEYPOINT_ON:
        missing = [n for n in cfg.DATASETS.TEST if MetadataCatalog.get(n).get("keypoint_flip_map") is None]
        if missing:
            raise UserError(f"TEST.AUG with keypoints needs keypoint_flip_map in the metadata of {missing}.")
    return RethinkTTA(cfg, model)


def evaluate_tta(
    cfg: CfgNode, model: nn.Module, test: Callable[[CfgNode, nn.Module, list], dict]
) -> dict[str, dict]:
    """{"tta": results} of `test(cfg, model, evaluators)`, the trainer's. Files: OUTPUT_DIR/inference_tta."""
    folder = os.path.join(cfg.OUTPUT_DIR, "inference_tta")
    evaluators = [build_evaluator(cfg, name, folder) for name in cfg.DATASETS.TEST]
    return {"tta": test(cfg, build_tta_model(cfg, model), evaluators)}
