"""The checks of geometry, against pycocotools for what they accept."""

import math

import numpy as np
import pycocotools.mask as mask_util
import pytest

from rethink_pretrain.data.geometry import (
    GRAVE,
    KINDS,
    box_problem,
    decode_runs,
    grave_problems,
    keypoints_problem,
    polygon_area,
    segmentation_problem,
)

WIDTH, HEIGHT = 20, 10
NAN, INF = math.nan, math.inf
TRIANGLE = [1, 2, 9, 2, 1, 8.5]


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ([1, 2, 3.5, 4], ""),
        ([-1, -1, 22, 12], ""),  # by 1 px, as rounding may
        *((box, "box-form") for box in (None, "1234", {}, [1, 2, 3], [1, 2, 3, True])),
        *((box, "box-form") for box in ([1, 2, 3, "4"], [[], 1, 2, 3])),
        ([NAN, 2, 3, 4], "box-not-finite"),
        ([1, 2, 3, NAN], "box-not-finite"),
        ([1, 2, INF, 4], "box-not-finite"),
        ([-INF, 2, INF, 4], "box-not-finite"),
        ([1, 2, 3, 1e6], "box-enormous"),
        ([-(10**400), 2, 3, 4], "box-enormous"),
        ([1, 2, 0, 4], "box-empty"),
        ([1, 2, 3, -4], "box-empty"),
        ([20, 2, 3, 4], "box-outside"),
        ([-3, 2, 3, 4], "box-outside"),
        ([1, 2, 3, 9.5], "box-beyond-image"),
        ([-1.5, 2, 3, 4], "box-beyond-image"),
    ],
)  # fmt: skip
def test_boxes(box, kind):
    assert box_problem(box, WIDTH, HEIGHT) == kind


@pytest.mark.parametrize(
    ("polygons", "kind"),
    [
        ([TRIANGLE], ""),
        (None, ""),
        ([], ""),
        *((value, "segmentation-form") for value in ("", 0, False, "abc", 7)),
        ([TRIANGLE, [1, 2, 9, 2, 1]], "polygon-form"),
        ([1, 2, 9, 2, 1, 8], "polygon-form"),  # not in a list
        *(([[1, 2, 9, 2, 1, value]], "polygon-form") for value in (None, True, "8", [8])),
        ([[NAN, 2, 9, 2, 1, 8]], "polygon-not-finite"),
        ([[1, 2, 9, 2, 1, NAN]], "polygon-not-finite"),
        ([TRIANGLE, [1, 2, INF, 2, -INF, 8]], "polygon-not-finite"),
        ([[1, 2, 2e8, 2, 1, 8]], "polygon-enormous"),
        ([[1, 2, 10**400, 2, 1, 8]], "polygon-enormous"),
        ([[1, 2, 301, 2, 1, 8]], "polygon-enormous"),  # 10 x (20 + 10)
        ([[1, 2, 299, 2, 1, 8]], ""),
        ([[0, 0, 20, 10] * 40], "polygon-enormous"),  # an outline of 80 x 20 px, and 50 x 30 are allowed
        ([[0, 0, 20, 10] * 30], "polygon-degenerate"),
        ([TRIANGLE, [1, 2, 3, 4]], "polygon-few-points"),
        ([TRIANGLE, []], "polygon-few-points"),
        ([[1, 2, 3, 4]], "polygon-as-box"),
        ([[], TRIANGLE], "polygon-as-box"),
        ([[1, 2], TRIANGLE], "polygon-as-box"),
        ([[1, 1, 5.5, 5.5, 9, 9]], "polygon-degenerate"),
        ([[30, 2, 39, 2, 30, 8]], "polygon-outside"),
        ([[1, 1, 5, 5, 9, 9], [1, 2, NAN, 2, 1, 8]], "polygon-not-finite"),  # the grave one comes first
    ],
)
def test_polygons(polygons, kind):
    assert segmentation_problem(polygons, WIDTH, HEIGHT) == kind


@pytest.mark.parametrize(
    ("rle", "kind"),
    [
        ({"size": [10, 20], "counts": [5, 195]}, ""),
        ({"size": [10, 20], "counts": [0, 200]}, ""),
        ({"size": [10, 20], "counts": [200]}, ""),
        ({}, "rle-form"),
        ({"size": [10, 20]}, "rle-form"),
        ({"counts": [200]}, "rle-form"),
        ({"size": [10, 20.0], "counts": [200]}, "rle-form"),
        ({"size": "10", "counts": [200]}, "rle-form"),
        ({"size": [10, 20], "counts": 200}, "rle-form"),
        ({"size": [10, 20], "counts": None}, "rle-form"),
        ({"size": [20, 10], "counts": [200]}, "rle-size"),
        ({"size": [-10, -20], "counts": [200]}, "rle-size"),
    ],
)
def test_masks(rle, kind):
    assert segmentation_problem(rle, WIDTH, HEIGHT) == kind


@pytest.mark.parametrize(
    "counts",
    [
        *([], [5, 194], [5, 950], [-5, 205], [5.0, 195], [2**32, 200], ["5", 195], [True, 199], [[], 200]),
        *("", "1", "é", "\0", "x" * 9, "P", "\ud800"),
    ],
)
def test_runs_that_do_not_add_up_or_are_none(counts):
    assert segmentation_problem({"size": [10, 20], "counts": counts}, WIDTH, HEIGHT) == "rle-counts"


@pytest.mark.parametrize(
    ("keypoints", "number", "kind"),
    [
        ([1, 2, 2, 0, 0, 0], None, ""),
        ([1, 2, 2, 0, 0, 0], 2, ""),
        (None, 17, ""),
        ([], 17, ""),
        ([1, 2, 2], 2, "keypoints-form"),
        ([1, 2], None, "keypoints-form"),
        ([1, 2, True], None, "keypoints-form"),
        ("", None, "keypoints-form"),
        ({}, None, "keypoints-form"),
        ([NAN, 2, 2], None, "keypoints-not-finite"),
        ([1e6, 2, 2], None, "keypoints-enormous"),
    ],
)
def test_keypoints(keypoints, number, kind):
    assert keypoints_problem(keypoints, number) == kind


def test_every_kind_has_words_and_grave_ones_are_kinds():
    assert set(KINDS) >= GRAVE and all(KINDS.values())


def test_an_annotation_is_asked_for_the_grave_ones_of_all_its_shapes():
    annotation = {"bbox": [1, 2, 0, 4], "segmentation": [[1, 2, 3, 4]], "keypoints": [1]}
    assert list(grave_problems(annotation, WIDTH, HEIGHT)) == ["polygon-as-box", "keypoints-form"]
    assert list(grave_problems({}, WIDTH, HEIGHT)) == ["box-form"]
    assert not list(grave_problems({"bbox": [1, 2, 3, 4], "segmentation": [TRIANGLE]}, WIDTH, HEIGHT))


def random_mask(rng: np.random.Generator) -> np.ndarray:
    """Of any size from 1 x 1, empty and full ones among them, and large ones with long runs."""
    height, width = rng.integers(1, 400 if rng.random() < 0.1 else 30, size=2)
    return (rng.random((height, width)) < rng.choice([0, 0.02, 0.5, 1])).astype(np.uint8, order="F")


def test_compressed_masks_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(500):
        mask = random_mask(rng)
        height, width = mask.shape
        rle = {"size": [height, width], "counts": mask_util.encode(mask)["counts"].decode()}
        runs = decode_runs(rle["counts"])
        assert (np.repeat(np.arange(len(runs)) % 2, runs) == mask.ravel(order="F")).all()
        assert segmentation_problem(rle, width, height) == ""
        assert segmentation_problem({**rle, "counts": runs}, width, height) == ""


def test_the_longest_run_fits():
    width, height = 2**14, 2**15 - 1
    (rle,) = mask_util.frPyObjects(
        [{"size": [height, width], "counts": [7, width * height - 7]}], height, width
    )
    assert decode_runs(rle["counts"].decode()) == [7, width * height - 7]


def test_strings_that_are_accepted_decode_to_the_same_mask():
    """Characters changed at random: pycocotools agrees wherever we find nothing wrong."""
    rng = np.random.default_rng(1)
    accepted = 0
    for _ in range(3000):
        mask = random_mask(rng)
        counts = bytearray(mask_util.encode(mask)["counts"])
        counts[rng.integers(len(counts))] = rng.integers(48, 112)
        rle = {"size": list(mask.shape), "counts": counts.decode()}
        if segmentation_problem(rle, mask.shape[1], mask.shape[0]) == "":
            accepted += 1
            runs = decode_runs(rle["counts"])
            assert (mask_util.decode(rle).ravel(order="F") == np.repeat(np.arange(len(runs)) % 2, runs)).all()
    assert accepted > 20


def test_the_largest_polygon_that_is_accepted_survives_enlarging():
    """By 280, as the host does for a mask of 28 px in a box of 0.1 px."""
    unit = WIDTH + HEIGHT
    polygon = np.array([0, 0, 10 * unit, 0, 10 * unit, 10 * unit])
    assert segmentation_problem([polygon.tolist()], WIDTH, HEIGHT) == ""
    (rle,) = mask_util.frPyObjects([(polygon * 280).tolist()], 28, 28)
    assert mask_util.area(rle) == 28 * 27 / 2  # without the diagonal


@pytest.mark.parametrize(
    ("polygon", "area"),
    [
        (TRIANGLE, 26.0),
        (TRIANGLE[:4], 0),
        ([0, 0, 0, 4, 4, 4, 4, 0], 16),
        ([0, 0, 2, 2, 2, 0, 0, 2], 0),  # crosses itself
    ],
)
def test_areas(polygon, area):
    assert polygon_area(polygon) == area
