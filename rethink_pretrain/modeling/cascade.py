"""Cascade R-CNN that can be turned on while a plain Mask R-CNN trains, as in the paper."""

from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, CascadeROIHeads
from detectron2.structures import Instances
from torch import nn


@ROI_HEADS_REGISTRY.register()
class SwitchedCascadeROIHeads(CascadeROIHeads):
    """The host's cascade, whose first stage may train alone until `turn_on` is called.

    The paper trains from scratch without cascade first and turns it on for the last 270k iterations, to
    save time. While it is off, the first stage and the other heads are a plain
    Mask R-CNN, in training and in testing. The buffer `cascade_on` is part of every checkpoint, so that
    an evaluation runs the model that was trained.
    """

    @configurable
    def __init__(self, *, start_on: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.register_buffer("cascade_on", torch.tensor(start_on))
        self._all_stages = self.num_cascade_stages
        self._follow_buffer()

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """The host's arguments; `cfg.RETHINK.CASCADE_ITERS` > 0 starts with the cascade off."""
        return {**super().from_config(cfg, input_shape), "start_on": cfg.RETHINK.CASCADE_ITERS == 0}

    @property
    def is_on(self) -> bool:
        """What `cascade_on` says, without waiting for the device that holds it."""
        return self.num_cascade_stages == self._all_stages

    def turn_on(self) -> None:
        """Let all stages run from now on; the new ones start as copies of the first.

        How they start is not stated in the paper. A copy is the same in every process and predicts sensible
        boxes at once. Does nothing where the cascade is on already.
        """
        if self.is_on:
            return
        for parts in (self.box_head, self.box_predictor):
            for part in parts[1:]:
                part.load_state_dict(parts[0].state_dict())
        self.cascade_on.fill_(True)
        self._follow_buffer()

    def idle_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the stages behind the first."""
        for parts in (self.box_head, self.box_predictor):
            yield from parts[1:].parameters()

    def _follow_buffer(self) -> None:
        # The host's loop runs over this many stages, and so do its averages.
        self.num_cascade_stages = self._all_stages if self.cascade_on else 1

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._follow_buffer()

    def _forward_box(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> Any:
        result = super()._forward_box(features, proposals, targets)
        if self.training and not self.is_on:
            # Distributed training waits for the gradient of every parameter: zeros for the idle ones. Weight
            # decay still wears them down, which does not matter: turn_on overwrites them.
            name = next(iter(result))
            result[name] = result[name] + 0.0 * sum(p.sum() for p in self.idle_parameters())
        return result
