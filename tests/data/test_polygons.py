"""Polygons that are shared, against the host's, which are copied."""

import pickle

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.structures import BitMasks, BoxMode, Instances, PolygonMasks
from PIL import Image

from rethink_pretrain.config.defaults import add_rethink_config
from rethink_pretrain.data import build_mapper
from rethink_pretrain.data.polygons import SharedPolygonMasks, share_polygons

TRIANGLE = [1.0, 2.0, 9.0, 2.0, 5.0, 8.0]


def make_masks():
    """Objects of 1, 2, 3 and 4 polygons."""
    return PolygonMasks([[np.array(TRIANGLE) + 10 * number] * number for number in range(1, 5)])


def shared(masks):
    instances = Instances((50, 50), gt_masks=masks)
    share_polygons(instances)
    return instances.gt_masks


@pytest.mark.parametrize(
    "item",
    [
        0,
        -1,
        slice(1, None),
        slice(None, None, 2),
        [3, 0, 0],
        [],
        torch.tensor([True, False, False, True]),
        torch.tensor([2, 2, 0]),
        torch.tensor([1], dtype=torch.int32),
        torch.tensor([], dtype=torch.int64),
    ],
)
def test_indices_are_the_hosts(item):
    host = make_masks()
    masks = shared(host)
    expected, found = host[item], masks[item]
    assert type(found) is SharedPolygonMasks
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert any(ours is each for each in masks.polygons)
        for left, right in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(left, right)


def test_other_indices_are_errors():
    with pytest.raises(ValueError, match="float32"):
        shared(make_masks())[torch.zeros(2)]
    with pytest.raises(IndexError):
        shared(make_masks())[[4]]


def test_as_instances_and_loaders_use_them():
    instances = Instances((50, 50), gt_masks=shared(make_masks()))
    picked = pickle.loads(pickle.dumps(instances[torch.tensor([1, 1, 3])])).gt_masks
    assert picked.polygons[0] is picked.polygons[1]
    both = Instances.cat([instances, instances]).gt_masks
    assert torch.equal(both.area(), make_masks().area().repeat(2))
    assert torch.equal(picked.area(), make_masks().area()[[1, 1, 3]])


def test_other_masks_stay():
    masks = BitMasks(torch.zeros(2, 5, 5, dtype=torch.bool))
    assert shared(masks) is masks
    share_polygons(Instances((5, 5)))


@pytest.mark.parametrize("switch", [True, False])
@pytest.mark.parametrize("objects", [0, 2])
def test_the_mapper_shares_where_targets_are_computed_at_once(tmp_path, switch, objects):
    cfg = get_cfg()
    add_rethink_config(cfg)
    cfg.MODEL.MASK_ON = True
    cfg.RETHINK.SPEED.MASK_TARGETS = switch
    Image.fromarray(np.zeros((40, 60, 3), dtype=np.uint8)).save(tmp_path / "image.png")
    thing = {"bbox": [1, 2, 9, 8], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": 0}
    annotations = [{**thing, "segmentation": [TRIANGLE]} for _ in range(objects)]
    record = {"file_name": str(tmp_path / "image.png"), "height": 40, "width": 60, "annotations": annotations}
    instances = build_mapper(cfg, is_train=True)(record)["instances"]
    assert len(instances) == objects
    if objects:
        assert type(instances.gt_masks) is (SharedPolygonMasks if switch else PolygonMasks)
