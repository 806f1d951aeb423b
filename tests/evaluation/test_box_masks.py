"""RLE from box masks against the host's paste and pycocotools' encode."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.layers.mask_ops import paste_masks_in_image
from detectron2.modeling import GeneralizedRCNN
from detectron2.structures import Boxes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rethink_pretrain.engine.trainer import Trainer
from rethink_pretrain.evaluation import box_masks
from rethink_pretrain.evaluation.box_masks import FIELD, WithBoxMasks, encode_box_masks, with_box_masks

sides = st.integers(1, 40)
kinds = st.sampled_from(["noise", "full", "empty"])


def encode(mask: np.ndarray) -> dict:
    return mask_util.encode(np.asfortranarray(mask.astype(np.uint8)))


def random_boxes(rng: torch.Generator, number: int, width: int, height: int) -> torch.Tensor:
    """Also left of and above the image, tiny, and beyond its other end."""
    size = torch.tensor([width, height])
    start = (torch.rand(number, 2, generator=rng) * 1.4 - 0.4) * size
    boxes = torch.cat([start, start + torch.rand(number, 2, generator=rng) ** 3 * 1.5 * size + 1e-3], dim=1)
    boxes[:, 2:] = boxes[:, 2:].clamp(min=0)
    return boxes


def paste_and_encode(masks: torch.Tensor, boxes: torch.Tensor, height: int, width: int) -> list[dict]:
    return [encode(mask) for mask in paste_masks_in_image(masks, boxes, (height, width)).numpy()]


@settings(max_examples=300, deadline=None)
@given(height=sides, width=sides, seed=st.integers(0, 2**31), kind=kinds, tile=st.sampled_from([8, 64, 512]))
def test_equal_to_paste_and_encode(height, width, seed, kind, tile):
    """Masks that fill the image, are empty or are noise; a tile ends within a column, or holds all."""
    rng = torch.Generator().manual_seed(seed)
    boxes = random_boxes(rng, 4, width, height)
    masks = {
        "full": torch.ones(4, 7, 7),
        "empty": torch.zeros(4, 7, 7),
        "noise": torch.rand(4, 7, 7, generator=rng),
    }[kind]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(box_masks, "_TILE", tile)
        found = encode_box_masks(masks, Boxes(boxes), height, width)
    assert found == paste_and_encode(masks, boxes, height, width)


@pytest.mark.parametrize("at_once", [1, 2000, 1 << 20])
def test_an_image_of_usual_size_in_parts(at_once, monkeypatch):
    monkeypatch.setattr(box_masks, "_AT_ONCE", at_once)
    rng = torch.Generator().manual_seed(1)
    boxes, masks = random_boxes(rng, 12, 320, 240), torch.rand(12, 28, 28, generator=rng)
    masks[3] = 1
    boxes[3] = torch.tensor([-99.0, -99.0, 500.0, 400.0])  # all of the image
    found = encode_box_masks(masks, Boxes(boxes), 240, 320)
    assert found == paste_and_encode(masks, boxes, 240, 320)
    assert found[3] == encode(np.ones((240, 320)))


def test_runs_by_hand():
    """A mask of ones in an image of 3 x 4 px: columns 1 and 2 whole, then row 1 of column 3."""
    boxes = torch.tensor([[1.0, 0, 3, 3], [3.0, 1, 4, 2]])
    rles = encode_box_masks(torch.ones(2, 1, 1), Boxes(boxes), 3, 4)
    expected = [{"size": [3, 4], "counts": counts} for counts in ([3, 6, 3], [10, 1, 1])]
    assert rles == [mask_util.frPyObjects(rle, 3, 4) for rle in expected]


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
    for method in ("forward", "inference"):
        model = Trainer.build_model(short_cfg)
        model.__class__ = type("Own", (GeneralizedRCNN,), {method: lambda *args: None})
        assert with_box_masks(model) is model
