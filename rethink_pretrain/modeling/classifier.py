"""The backbone of a detector as an image classifier, for pre-training."""

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.utils.events import get_event_storage
from torch import nn
from torch.nn import functional as F

from ..errors import UserError


@META_ARCH_REGISTRY.register()
class BackboneClassifier(nn.Module):
    """A backbone without FPN, the mean over its deepest map, and one fully connected layer.

    Takes records of "image", C x H x W and of one size in a batch, and in training "label", 0 to
    `num_classes` - 1. Gives {"loss_cls": cross entropy} in training, else [{"scores": (num_classes,)}], which
    add up to 1.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        num_classes: int,
        pixel_mean: list[float],
        pixel_std: list[float],
    ):
        """`backbone` gives maps by name; mean and std are one value per channel, as for the detector."""
        super().__init__()
        if num_classes < 2:
            raise UserError(f"RETHINK.CLASSIFIER.NUM_CLASSES is {num_classes}; a classifier needs 2 or more.")
        self.backbone = backbone
        shapes = backbone.output_shape()
        self._deepest = max(shapes, key=lambda name: shapes[name].stride)
        self.linear = nn.Linear(shapes[self._deepest].channels, num_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The detector's backbone by MODEL.BACKBONE; of one with FPN, what stands below it."""
        backbone = build_backbone(cfg)
        return {
            "backbone": getattr(backbone, "bottom_up", backbone),
            "num_classes": cfg.RETHINK.CLASSIFIER.NUM_CLASSES,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        """Where the model is; images may come from elsewhere."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor] | list[dict]:
        """See the class."""
        images = torch.stack([record["image"] for record in batched_inputs]).to(self.device)
        maps = self.backbone((images.float() - self.pixel_mean) / self.pixel_std)
        logits = self.linear(maps[self._deepest].mean(dim=(2, 3)))
        if not self.training:
            return [{"scores": scores} for scores in logits.softmax(dim=1)]
        labels = torch.tensor([record["label"] for record in batched_inputs], device=self.device)
        correct = (logits.argmax(dim=1) == labels).float().mean()
        get_event_storage().put_scalar("classifier/accuracy", correct.item())
        return {"loss_cls": F.cross_entropy(logits, labels)}
