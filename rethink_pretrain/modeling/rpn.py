"""Detectron's count of proposals: the best of the whole batch, not of each image."""

import sys

import torch
from detectron2.config import configurable
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY, RPN
from detectron2.structures import Boxes, Instances


@PROPOSAL_GENERATOR_REGISTRY.register()
class BatchTopkRPN(RPN):
    """The host's RPN, which in training keeps the best POST_NMS_TOPK_TRAIN x images of its whole batch.

    Detectron keeps 2000 proposals of a GPU's two images together, so a
    crowded image may hand more of them to the RoI heads than an empty one. With 1000 per image this
    is the same number for two images, and the same share for any other batch. Testing is per image.
    """

    @configurable
    def __init__(self, *, post_nms_topk: tuple[int, int], **kwargs):
        train_topk, test_topk = post_nms_topk
        super().__init__(post_nms_topk=(sys.maxsize, test_topk), **kwargs)
        self.topk_per_image = train_topk

    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[torch.Tensor],
        pred_anchor_deltas: list[torch.Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """One `Instances` an image, best objectness first, as in the host."""
        proposals = super().predict_proposals(
            anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes
        )
        if not self.training:
            return proposals
        return keep_best_of_batch(proposals, self.topk_per_image * len(image_sizes))


def keep_best_of_batch(proposals: list[Instances], topk: int) -> list[Instances]:
    """The `topk` proposals of highest `objectness_logits` of all images; equals of the last stay too."""
    scores = torch.cat([image.objectness_logits for image in proposals])
    if len(scores) <= topk:
        return proposals
    threshold = scores.topk(topk).values[-1]
    return [image[image.objectness_logits >= threshold] for image in proposals]
