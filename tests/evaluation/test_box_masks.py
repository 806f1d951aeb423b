"""RLE from box masks against the host's paste and pycocotools' encode."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.structures import Boxes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rethink_pretrain.engine.trainer import Trainer
from rethink_pretrain.evaluation.box_masks import (
    FIELD,
    WithBoxMasks,
    count_runs,
    encode_box_masks,
    with_box_masks,
)

sides = st.integers(1, 40)
kinds = st.sampled_from(["noise", "full", "empty"])


def encode(mask: np.ndarray) -> dict:
    return mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))


@settings(max_examples=200, deadline=None)
@given(
    height=sides, width=sides, seed=st.integers(0, 2**31), kind=st.sampled_from(["noise", "full", "empty"])
)
def test_equal_to_paste_and_encode(height, width, seed, kind):
    rng = torch.Generator().manual_seed(seed)
    size = torch.tensor([width, height])
    start = (torch.rand(4, 2, generator=rng) * 1.4 - 0.4) * size  # also left of and above the image
    extent = torch.rand(4, 2, generator=rng) ** 3 * 1.5 * size + 1e-3  # also tiny, and beyond its other end
    boxes = torch.cat([start, start + extent], dim=1)
    boxes[:, 2:] = boxes[:, 2:].clamp(min=0)
    masks = {"full": torch.ones, "empty": torch.zeros}.get(kind, torch.rand)(4, 7, 7)
    pasted = paste_masks_in_image(masks, boxes, (height, width)).numpy()
    assert encode_box_masks(masks, Boxes(boxes), height, width) == [encode(mask) for mask in pasted]


@settings(max_examples=200, deadline=None)
@given(sides, sides, st.integers(0, 2**31))
def test_runs_of_any_crop(height, width, seed):
    rng = np.random.default_rng(seed)
    top, bottom = sorted(rng.integers(0, height + 1, 2))
    left, right = sorted(rng.integers(0, width + 1, 2))
    if rng.random() < 0.3:
        top, bottom = 0, height
    image = np.zeros((height, width), bool)
    image[top:bottom, left:right] = rng.random((bottom - top, right - left)) < rng.choice([0.1, 0.5, 1])
    counts = count_runs(image[top:bottom, left:right], top, left, height, width)
    assert sum(counts) == height * width
    rle = {"size": [height, width], "counts": counts}
    assert mask_util.frPyObjects(rle, height, width) == encode(image)


def test_no_masks():
    assert encode_box_masks(torch.zeros(0, 28, 28), Boxes(torch.zeros(0, 4)), 5, 6) == []


def test_a_model_in_its_wrapper_finds_the_same(short_cfg):
    short_cfg.defrost()
    short_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    torch.manual_seed(0)
    model = Trainer.build_model(short_cfg).eval()
    compact = with_box_masks(model)
    assert isinstance(compact, WithBoxMasks)
    image = {"image": torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8), "height": 90, "width": 70}
    with torch.no_grad():
        expected, found = model([image])[0]["instances"], compact([image])[0]["instances"]
    assert len(found) > 0
    assert not found.has("pred_masks")
    assert torch.equal(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(found.scores, expected.scores)
    rles = encode_box_masks(found.get(FIELD), found.pred_boxes, *found.image_size)
    assert rles == [encode(mask) for mask in expected.pred_masks.numpy()]
    evaluators = [Trainer.build_evaluator(short_cfg, name) for name in short_cfg.DATASETS.TEST]
    # The first with the host's masks: Trainer.test takes given evaluators as they are.
    results = [Trainer.test(short_cfg, model, given)["segm"] for given in (evaluators, None)]
    assert results[0] == pytest.approx(results[1], nan_ok=True)


def test_the_wrapper_follows_the_mode_of_its_model_and_leaves_others_alone(short_cfg):
    other = nn.Linear(1, 1)
    assert with_box_masks(other) is other
    model = Trainer.build_model(short_cfg)
    compact = with_box_masks(model)
    assert compact.training
    assert not compact.eval().model.training
    model.roi_heads.mask_on = False
    assert with_box_masks(model) is model
