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
from torch.utils._python_dispatch import TorchDispatchMode

from rethink_pretrain.data.polygons import share_polygons
from rethink_pretrain.modeling.heads import RethinkMaskHead
from rethink_pretrain.modeling.mask_targets import mask_targets
from rethink_pretrain.modeling.rasterize import rasterize_in_torch, rasterize_polygons

SIDE = 200
# NumPy on a CPU, and what a GPU computes.
both = pytest.mark.parametrize("rasterize", [rasterize_polygons, rasterize_in_torch])


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


def crops(polygons, boxes, size):
    """The host's."""
    return PolygonMasks(polygons).crop_and_resize(boxes, size)


@both
@pytest.mark.parametrize("size", [7, 14, 28])
@pytest.mark.parametrize("seed", range(4))
def test_polygons_equal_the_hosts_in_every_pixel(seed, size, rasterize):
    image = make_instances(seed, num_rois=150)  # more than NumPy takes at once
    boxes, expected = image.proposal_boxes.tensor, hosts(image, size)
    assert expected.any() and not expected.all()
    assert torch.equal(rasterize(image.gt_masks.polygons, boxes, size), expected)


@pytest.mark.parametrize("share", [False, True])
def test_targets_of_several_images(share):
    images = [make_instances(1), make_instances(101, 2, 9)]
    expected = torch.cat([hosts(image, 28) for image in images])
    for image in images:
        if share:
            share_polygons(image)
    assert torch.equal(mask_targets(images, 28), expected)


@both
def test_rois_of_one_object_share_its_polygons(rasterize):
    image = make_instances(5, 3)
    share_polygons(image)
    owner = torch.arange(40) % 3
    polygons, boxes = image.gt_masks[owner].polygons, image.proposal_boxes.tensor
    assert len({id(each) for each in polygons}) == 3
    assert torch.equal(rasterize(polygons, boxes, 28), crops(polygons, boxes, 28))


@both
@pytest.mark.parametrize("side", [28, 14, 70, 3])
def test_ties(side, rasterize):
    """Vertices half-way between points of the grid, and lines that pass half-way between two of them."""
    generator = np.random.default_rng(side)
    step = side / 280
    polygons = [[generator.integers(-60, 340, 2 * points) * step] for points in range(3, 43)]
    boxes = torch.tensor([[0.0, 0.0, side, side]]).repeat(40, 1)
    assert torch.equal(rasterize(polygons, boxes, 28), crops(polygons, boxes, 28))


@both
def test_an_object_of_many_polygons_and_one_of_none(rasterize):
    """As many over each other as a byte counts as none."""
    square = np.array([10.0, 10, 50, 10, 50, 50, 10, 50])
    polygons = [[], [square] * 256, [square], []]
    boxes = torch.tensor([[0.0, 0.0, 60.0, 60.0]]).repeat(4, 1)
    found = rasterize(polygons, boxes, 28)
    assert torch.equal(found, crops(polygons, boxes, 28))
    assert found.flatten(1).any(1).tolist() == [False, True, True, False]


def test_a_gpu_is_never_waited_for():
    """A tensor without data tells nothing to the CPU."""
    image = make_instances(1)
    found = rasterize_polygons(image.gt_masks.polygons, image.proposal_boxes.tensor.to("meta"), 28)
    assert found.shape == (40, 28, 28)
    assert found.dtype == torch.bool


@both
def test_no_polygon_at_all(rasterize):
    assert rasterize([], torch.zeros(0, 4), 28).shape == (0, 28, 28)
    assert not rasterize([[]], torch.tensor([[0.0, 0.0, 9.0, 9.0]]), 28).any()


numbers = st.floats(-50, 250, allow_nan=False, width=32)


@both
@given(
    st.lists(st.lists(numbers, min_size=6, max_size=24), min_size=1, max_size=3),
    st.tuples(numbers, numbers, st.floats(0, 150, width=32), st.floats(0, 150, width=32)),
)
@settings(max_examples=100, deadline=None)
def test_any_polygon_in_any_box(rasterize, polygons, box):
    """Also beyond the image, without area, and in boxes without one."""
    polygons = [np.array(points[: len(points) // 2 * 2], dtype=np.float64) for points in polygons]
    corner = torch.tensor([[box[0], box[1], box[0] + box[2], box[1] + box[3]]])
    assert torch.equal(rasterize([polygons], corner, 28), crops([polygons], corner, 28))


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
    assert found[1] == expected[1]
    for ours, host in zip(fast.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, host.grad)


class Reads(TorchDispatchMode):
    """Counts the numbers that are read from tensors one by one; on a GPU each of them waits."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_statistics_are_read_at_once():
    with Reads() as reads:
        torch.ones(1).item()
    assert reads.number == 1
    _, fast = make_heads()
    with Reads() as reads, EventStorage():
        fast(torch.randn(40, 32, 14, 14), [make_instances(1)])
    assert reads.number == 0


def test_no_roi_at_all():
    images = [make_instances(4, 2, 0)]
    plain, fast = make_heads()
    features = torch.randn(0, 32, 14, 14)
    assert losses(fast, features, images)[0] == losses(plain, features, images)[0] == 0
