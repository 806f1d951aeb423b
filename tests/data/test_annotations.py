"""Annotations transformed at once against the host's one by one, bit by bit."""

import copy

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from hypothesis import given, settings
from hypothesis import strategies as st

from rethink_pretrain.data.annotations import transform_annotations

HEIGHT, WIDTH = 40, 60

whole = st.integers(-5, 70)
coordinates = st.one_of(whole, st.floats(-5, 70, width=32), st.floats(-5, 70))
boxes = st.one_of(st.lists(whole, min_size=4, max_size=4), st.lists(coordinates, min_size=4, max_size=4))
points = st.integers(3, 6).flatmap(
    lambda n: st.one_of(*(st.lists(kind, min_size=2 * n, max_size=2 * n) for kind in (whole, coordinates)))
)
annotations = st.lists(
    st.fixed_dictionaries(
        {
            "bbox": boxes,
            "bbox_mode": st.sampled_from([BoxMode.XYXY_ABS, BoxMode.XYWH_ABS]),
            "category_id": st.integers(0, 80),
            "segmentation": st.lists(st.one_of(points, points.map(np.array)), max_size=3),
        }
    ),
    max_size=5,
)


@st.composite
def chains(draw) -> tuple[T.TransformList, tuple[int, int]]:
    """Some of the transforms of training, and the size of the image after them."""
    height, width, chain = HEIGHT, WIDTH, []
    for kind in draw(st.lists(st.sampled_from(["resize", "hflip", "vflip", "pad", "crop"]), max_size=4)):
        if kind == "resize":
            new_height, new_width = draw(st.integers(10, 90)), draw(st.integers(10, 90))
            chain.append(T.ResizeTransform(height, width, new_height, new_width))
            height, width = new_height, new_width
        elif kind == "pad":
            chain.append(T.PadTransform(0, 0, 5, 7, width, height))
            height, width = height + 7, width + 5
        elif kind == "crop":
            chain.append(T.CropTransform(2, 3, width - 4, height - 5, width, height))
            height, width = height - 5, width - 4
        else:
            chain.append(T.HFlipTransform(width) if kind == "hflip" else T.VFlipTransform(height))
    return T.TransformList(chain), (height, width)


def transform_by_host(objects: list[dict], transforms: T.TransformList, size: tuple[int, int]) -> list[dict]:
    transform = detection_utils.transform_instance_annotations
    return [transform(copy.deepcopy(each), transforms, size) for each in objects]


def equal(one: list[dict], other: list[dict]) -> bool:
    """Geometry of the same values and types."""
    for a, b in zip(one, other, strict=True):
        arrays = zip([a["bbox"], *a["segmentation"]], [b["bbox"], *b["segmentation"]], strict=True)
        if not all(x.dtype == y.dtype and np.array_equal(x, y, equal_nan=True) for x, y in arrays):
            return False
        if (a["bbox_mode"], a["category_id"]) != (b["bbox_mode"], b["category_id"]):
            return False
    return True


@settings(max_examples=150, deadline=None)
@given(annotations, chains())
def test_it_is_what_the_host_gives(objects, chain):
    before = copy.deepcopy(objects)
    ret = transform_annotations(objects, *chain, masks=True)
    assert equal(ret, transform_by_host(objects, *chain))
    assert repr(objects) == repr(before)


@settings(max_examples=50, deadline=None)
@given(annotations.filter(bool), chains())
def test_the_model_gets_the_same_boxes(objects, chain):
    instances = [
        detection_utils.annotations_to_instances(
            [{key: each[key] for key in ("bbox", "bbox_mode", "category_id")} for each in ret], chain[1]
        )
        for ret in (transform_annotations(objects, *chain, masks=False), transform_by_host(objects, *chain))
    ]
    assert torch.equal(instances[0].gt_boxes.tensor, instances[1].gt_boxes.tensor)
    assert torch.equal(instances[0].gt_classes, instances[1].gt_classes)


def make_object(**changes) -> dict:
    ret = {"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    return {**ret, "segmentation": [[0, 0, 9, 0, 9, 9]], **changes}


RLE = mask_util.encode(np.asfortranarray(np.tri(HEIGHT, WIDTH, dtype=np.uint8)))
FLIP = T.TransformList([T.HFlipTransform(WIDTH)])


@pytest.mark.parametrize(
    "changes",
    [
        {"segmentation": RLE},
        {"segmentation": None},
        {"bbox": np.array([1, 2, 3, 4])},
        {"bbox": (1, 2, 3, 4)},
        {"bbox": [1, 2, 3, 4, 90], "bbox_mode": BoxMode.XYWHA_ABS},
        {"bbox": [0.1, 0.2, 0.3, 0.4], "bbox_mode": BoxMode.XYXY_REL},
        {"bbox": [True, 2, 3, 4]},
    ],
)
def test_what_is_left_to_the_host(changes):
    objects = [make_object(), make_object(**changes)]
    assert transform_annotations(objects, FLIP, (HEIGHT, WIDTH), masks=True) is None


def test_without_masks_no_segmentation_is_looked_at():
    (ret,) = transform_annotations([make_object(segmentation=RLE)], FLIP, (HEIGHT, WIDTH), masks=False)
    assert ret.keys() == {"bbox", "bbox_mode", "category_id"}
    np.testing.assert_array_equal(ret["bbox"], [WIDTH - 3, 2, WIDTH - 1, 4])


def test_an_object_without_segmentation_has_none():
    bare = make_object()
    del bare["segmentation"]
    ret = transform_annotations([bare, make_object()], FLIP, (HEIGHT, WIDTH), masks=True)
    assert ["segmentation" in each for each in ret] == [False, True]
