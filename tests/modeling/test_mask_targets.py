"""Mask targets of all RoIs at once against the host's, one after the other by pycocotools."""

import copy

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from hypothesis import given, settings
from hypothesis import strategies as st

from rethink_pretrain.modeling.heads import RethinkMaskHead
from rethink_pretrain.modeling.mask_targets import mask_targets, rasterize_polygons

SIDE = 200


def star(generator, points, parts=1):
    """Polygons of one object, whose outline crosses itself now and then."""
    ret = []
    for _ in range(parts):
        middle, radius = generator.uniform(20, SIDE - 20, 2), generator.uniform(2, 90)
        angles = np.sort(generator.uniform(0, 2 * np.pi, points))
        reach = radius * generator.uniform(0.3, 1.0, points)
        outline = middle + np.stack([np.cos(angles) * reach, np.sin(angles) * reach], axis=1)
        ret.append(outline.reshape(-1))
    return ret


def make_instances(seed, num_objects=7, num_rois=40):
    generator = np.random.default_rng(seed)
    parts = generator.integers(1, 4, num_objects)
    objects = [star(generator, generator.integers(3, 40), of_one) for of_one in parts]
    start = generator.uniform(-30, SIDE, (num_rois, 2))
    boxes = np.concatenate([start, start + generator.uniform(0.01, 120, (num_rois, 2))], axis=1)
    owner = generator.integers(0, num_objects, num_rois)
    ret = Instances((SIDE, SIDE))
    ret.proposal_boxes = Boxes(torch.from_numpy(boxes).float())
    ret.gt_masks = PolygonMasks(objects)[torch.from_numpy(owner)]
    ret.gt_classes = torch.from_numpy(generator.integers(0, 5, num_rois))
    return ret


def hosts(instances, size):
    return instances.gt_masks.crop_and_resize(instances.proposal_boxes.tensor, size)


@pytest.mark.parametrize("size", [14, 28])
@pytest.mark.parametrize("seed", range(5))
def test_polygons_equal_the_hosts_in_every_pixel(seed, size):
    images = [make_instances(seed), make_instances(seed + 100, 2, 9)]
    expected = torch.cat([hosts(image, size) for image in images])
    assert expected.any() and not expected.all()
    assert torch.equal(mask_targets(images, size), expected)


numbers = st.floats(-50, 250, allow_nan=False, width=32)


@given(
    st.lists(st.lists(numbers, min_size=6, max_size=24), min_size=1, max_size=3),
    st.tuples(numbers, numbers, st.floats(0, 150, width=32), st.floats(0, 150, width=32)),
)
@settings(max_examples=150, deadline=None)
def test_any_polygon_in_any_box(polygons, box):
    """Also beyond the image, without area, and in boxes without one."""
    polygons = [np.array(points[: len(points) // 2 * 2], dtype=np.float64) for points in polygons]
    corner = torch.tensor([[box[0], box[1], box[0] + box[2], box[1] + box[3]]])
    expected = PolygonMasks([polygons]).crop_and_resize(corner, 28)
    found = rasterize_polygons([polygons], corner, 28)
    assert (found == expected).float().mean() >= 0.999


def test_bitmasks_go_through_the_hosts_code():
    image = make_instances(3, num_rois=6)
    image.gt_masks = BitMasks(torch.rand(6, SIDE, SIDE) > 0.5)
    assert torch.equal(mask_targets([image], 28), hosts(image, 28))


def make_heads(cls_agnostic=False):
    torch.manual_seed(0)
    plain = RethinkMaskHead(
        ShapeSpec(channels=32, width=14, height=14),
        num_classes=1 if cls_agnostic else 5,
        conv_dims=[32, 32],
        conv_norm="GN",
    )
    fast = copy.deepcopy(plain)
    fast.batched_targets = True
    return plain, fast


def losses(head, features, images):
    with EventStorage() as storage:
        loss = head(features, images)["loss_mask"]
        loss.backward()
        return loss.item(), {name: value for name, (value, _) in storage.latest().items()}


@pytest.mark.parametrize("cls_agnostic", [False, True])
def test_loss_gradient_and_statistics_are_the_hosts(cls_agnostic):
    images = [make_instances(1), make_instances(2, 3, 8), make_instances(4, 2, 0)]
    features = torch.randn(48, 32, 14, 14)
    plain, fast = make_heads(cls_agnostic)
    expected, found = (losses(head, features, images) for head in (plain, fast))
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert found[1] == pytest.approx(expected[1], rel=1e-5)
    for ours, host in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, host.grad)


def test_no_roi_at_all():
    images = [make_instances(4, 2, 0)]
    plain, fast = make_heads()
    features = torch.randn(0, 32, 14, 14)
    assert losses(fast, features, images)[0] == losses(plain, features, images)[0] == 0
