"""What a config builds, in numbers: parameters, norms, GFLOPs; and what the golden file says of them."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..errors import UserError
from .doctor.parts import norm_label

IMAGE_SIZE = (800, 1216)  # height, width in px: the usual COCO image at the short side of 800, padded to 32
BOX_ROIS = 512  # RoIs of one training image
POSITIVE_ROIS = 128  # of which at most a quarter are positive and reach the mask and keypoint heads


class Description(NamedTuple):
    """Numbers of one model. `gflops` has a value per part: backbone (with FPN), rpn, box, mask, and so on."""

    total: int
    trainable: int
    norms: dict[str, int]
    gflops: dict[str, float]

    @property
    def frozen(self) -> int:
        """Parameters that training leaves alone."""
        return self.total - self.trainable

    def golden(self) -> dict[str, float]:
        """The entry of the golden file."""
        gflops = round(sum(self.gflops.values()), 2)
        return {"total": self.total, "trainable": self.trainable, "gflops": gflops}

    def describe_norms(self) -> str:
        """ "GN 68", "FrozenBN 12, GN 40" or "none"."""
        return ", ".join(f"{name} {count}" for name, count in sorted(self.norms.items())) or "none"


def describe_model(cfg: CfgNode, known: dict[str, Description] | None = None) -> Description:
    """Build the model of `cfg` on the CPU, without MODEL.WEIGHTS, and describe it.

    `known` collects the descriptions: configs that differ in their data or schedule are built once.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    known = {} if known is None else known
    key = cfg.MODEL.dump() + cfg.RETHINK.INIT
    if key not in known:
        model = build_model(cfg).eval()
        parameters = list(model.parameters())
        known[key] = Description(
            total=sum(p.numel() for p in parameters),
            trainable=sum(p.numel() for p in parameters if p.requires_grad),
            norms=count_norms(model),
            gflops=count_gflops(cfg, model),
        )
    return known[key]


def count_norms(model: nn.Module) -> dict[str, int]:
    """Layers by the name of their kind in configs; the class name where configs have none."""
    return dict(Counter(filter(None, map(norm_label, model.modules()))))


def count_gflops(cfg: CfgNode, model: nn.Module) -> dict[str, float]:
    """Of the forward pass of one image of `IMAGE_SIZE` (2 x multiply-adds), by part, all RoIs used.

    Convolutions and matrix products count; norms, pooling, RoIAlign and NMS do not. All stages of a cascade
    count, also where it starts turned off. Moves `model` to the meta device, so that nothing is computed and
    its weights are lost. Raises `UserError` for RoI heads without a box head, such as the host's C4.
    """
    model = model.to("meta")
    gflops = {}

    def measure(part: str, run: Callable[[], Any]) -> Any:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            result = run()
        gflops[part] = gflops.get(part, 0.0) + counter.get_total_flops() / 1e9
        return result

    image = torch.empty(1, len(cfg.MODEL.PIXEL_MEAN), *IMAGE_SIZE, device="meta")
    features = measure("backbone", lambda: model.backbone(image))
    if getattr(model, "proposal_generator", None):
        maps = [features[name] for name in cfg.MODEL.RPN.IN_FEATURES]
        measure("rpn", lambda: model.proposal_generator.rpn_head(maps))
    if hasattr(model, "head"):
        maps = [features[name] for name in cfg.MODEL.RETINANET.IN_FEATURES]
        measure("retinanet", lambda: model.head(maps))
    if hasattr(model, "sem_seg_head"):
        measure("sem_seg", lambda: model.sem_seg_head.layers(features))
    for part, run in _roi_parts(cfg, model):
        measure(part, run)
    return gflops


def _roi_parts(cfg: CfgNode, model: nn.Module) -> Iterable[tuple[str, Callable[[], Any]]]:
    heads = getattr(model, "roi_heads", None)
    if heads is None:
        return
    if not hasattr(heads, "box_head"):
        raise UserError(
            f"MODEL.ROI_HEADS.NAME {cfg.MODEL.ROI_HEADS.NAME} has no box head whose FLOPs to count."
        )
    channels = model.backbone.output_shape()[cfg.MODEL.ROI_HEADS.IN_FEATURES[0]].channels

    def rois(number: int, resolution: int) -> torch.Tensor:
        return torch.empty(number, channels, resolution, resolution, device="meta")

    boxes = rois(BOX_ROIS, cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION)
    stages = (heads.box_head, heads.box_predictor)
    for head, predictor in zip(*stages) if isinstance(stages[0], nn.ModuleList) else [stages]:
        yield "box", lambda head=head, predictor=predictor: predictor(head(boxes))
    if cfg.MODEL.MASK_ON:
        yield (
            "mask",
            lambda: heads.mask_head.layers(rois(POSITIVE_ROIS, cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION)),
        )
    if cfg.MODEL.KEYPOINT_ON:
        yield (
            "keypoint",
            lambda: heads.keypoint_head.layers(
                rois(POSITIVE_ROIS, cfg.MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION)
            ),
        )


def describe_schedule(cfg: CfgNode) -> str:
    """ "540000 it, drops 480000 520000, LR 0.02, batch 16"."""
    solver = cfg.SOLVER
    drops = " ".join(map(str, solver.STEPS)) or "none"
    return f"{solver.MAX_ITER} it, drops {drops}, LR {solver.BASE_LR:g}, batch {solver.IMS_PER_BATCH}"


def compare(golden: dict[str, Any] | None, found: dict[str, Any]) -> str:
    """ "gflops 503.1, golden file 504.2", the values that differ in one line; "" for none."""
    if golden is None:
        return "not in the golden file"
    keys = [key for key in {**golden, **found} if golden.get(key) != found.get(key)]
    return ", ".join(f"{key} {found.get(key)}, golden file {golden.get(key)}" for key in keys)
