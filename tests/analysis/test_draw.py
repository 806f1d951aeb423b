"""Objects drawn on images, looked at pixel by pixel."""

import numpy as np
import pytest
from PIL import ImageColor
from pycocotools import mask as mask_util

from rethink_pretrain.analysis.draw import as_rgb, beside, decode_mask, draw_comparison, draw_objects

RED = ImageColor.getrgb("#ff4b4b")  # of category ids that eight divides
GRAY = np.full((100, 200, 3), 60, dtype=np.uint8)
NAMES = {8: "disc"}


def test_decode_agrees_over_all_three_forms_of_coco():
    square = [[2.0, 1.0, 6.0, 1.0, 6.0, 5.0, 2.0, 5.0]]
    mask = np.zeros((8, 10), dtype=np.uint8)
    mask[1:5, 2:6] = 1
    compressed = mask_util.encode(np.asfortranarray(mask))
    columns = mask.ravel(order="F")
    counts = np.diff(np.flatnonzero(np.diff(np.r_[2, columns, 2])))
    uncompressed = {"counts": counts.tolist(), "size": [8, 10]}
    for form in (square, compressed, uncompressed):
        assert np.array_equal(decode_mask(form, 8, 10), mask)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_box_lies_on_the_outermost_pixels_of_its_object(scale):
    item = {"category_id": 8, "bbox": [100, 40, 30, 20]}
    drawn = draw_objects(GRAY, [item], {8: ""}, size=200 * scale)
    rows, columns = np.nonzero((drawn == RED).all(axis=2))
    assert (rows.min(), rows.max() + 1) == (40 * scale, 60 * scale)
    assert (columns.min(), columns.max() + 1) == (100 * scale, 130 * scale)
    assert drawn.shape == (100 * scale, 200 * scale, 3)
    assert (drawn[50 * scale, 115 * scale] == 60).all()  # not filled


def test_a_mask_is_tinted_with_an_opaque_rim():
    item = {"category_id": 8, "segmentation": [[20.0, 20.0, 60.0, 20.0, 60.0, 50.0, 20.0, 50.0]]}
    drawn = draw_objects(GRAY, [item], NAMES, size=200)
    assert (drawn[20, 20:60] == RED).all() and (drawn[20:50, 59] == RED).all()
    assert np.abs(drawn[35, 40] - (0.65 * 60 + 0.35 * np.array(RED))).max() < 1
    outside = drawn.copy()
    outside[20:50, 20:60] = 60
    assert (outside == GRAY).all()


def test_a_crowd_is_white_and_striped():
    mask = np.zeros((100, 200), dtype=np.uint8)
    mask[10:90, 10:190] = 1
    item = {"category_id": 8, "iscrowd": 1, "segmentation": mask_util.encode(np.asfortranarray(mask))}
    inside = draw_objects(GRAY, [item], NAMES, size=200)[15:85, 15:185]
    assert np.isin(np.arange(12, 24), (12, 13)).mean() == pytest.approx(
        (inside == 255).all(axis=2).mean(), abs=0.01
    )


def test_keypoints_stand_on_the_middle_of_their_pixels_and_unlabelled_ones_nowhere():
    item = {"category_id": 8, "keypoints": [30, 40, 2, 90, 40, 1, 150, 40, 0]}
    drawn = draw_objects(GRAY, [item], NAMES, skeletons={8: [[1, 2], [2, 3]]}, size=400)
    assert (drawn[81, 61] == RED).all()  # filled
    assert (drawn[81, 181] == 60).all() or (drawn[81, 181] == RED).all()  # hollow, but a bone ends there
    assert (drawn[81, 62:180] == RED).all(axis=1).mean() > 0.9
    assert (drawn[:, 190:] == 60).all()
    alone = draw_objects(GRAY, [item], NAMES, size=400)
    assert (alone[81, 181] == 60).all() and (alone[81, 176:186] == RED).all(axis=1).any()


def test_labels_stay_inside_the_picture():
    for box in ([0, 0, 5, 5], [190, 95, 10, 5], [0, 95, 5, 5], [195, 0, 5, 5]):
        item = {"category_id": 8, "bbox": box, "score": 0.5}
        drawn = draw_objects(GRAY, [item], {8: "a long name of a category"}, size=400)
        white = (drawn > 240).all(axis=2)
        rows, columns = np.nonzero(white)
        assert white.sum() > 50
        assert columns.min() >= 2 and columns.max() < 398 and rows.min() >= 1 and rows.max() < 199


def test_what_coco_leaves_open_is_drawn_too():
    """Unknown categories, no box, empty lists; nothing is a picture as it was."""
    items = [
        {"category_id": 5, "bbox": [10, 10, 20, 20]},
        {"category_id": 8, "segmentation": [], "keypoints": [], "bbox": [0, 0, 0, 0]},
        {"category_id": 8},
    ]
    assert (draw_objects(GRAY, items, NAMES, size=200) != GRAY).any()
    assert (draw_objects(GRAY, [], NAMES, size=200) == GRAY).all()
    assert draw_objects(GRAY, [], NAMES).shape == (200, 400, 3)  # small images are enlarged


def test_a_comparison_is_two_drawings_below_their_titles():
    truth, found = (
        [{"category_id": 8, "bbox": [20, 20, 50, 50]}],
        [{"category_id": 8, "bbox": [90, 30, 40, 40]}],
    )
    drawn = draw_comparison(GRAY, truth, found, NAMES, size=200)
    left, right = draw_objects(GRAY, truth, NAMES, size=200), draw_objects(GRAY, found, NAMES, size=200)
    assert drawn.dtype == np.uint8 and drawn.shape[1] == 404 and drawn.shape[0] > 110
    assert (drawn[-100:, :200] == left).all() and (drawn[-100:, 204:] == right).all()
    assert (beside([left, right]) == drawn[-100:]).all()


def test_any_image_can_be_looked_at():
    eight_bit = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert (as_rgb(eight_bit) == eight_bit[:, :, :3]).all()
    assert (as_rgb(eight_bit[:, :, :1]) == eight_bit[:, :, :1]).all()
    ramp = np.linspace(1000, 5000, 101, dtype=np.float32)[None, :, None]
    seen = as_rgb(ramp)
    assert seen.shape == (1, 101, 3) and seen.dtype == np.uint8
    assert (seen[0, 0], seen[0, 100], seen[0, 50]) == pytest.approx((0, 255, 127))
    assert (as_rgb(np.zeros((2, 2, 5), dtype=np.uint16)) == 0).all()
