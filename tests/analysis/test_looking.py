"""What is shown: which images, which numbers, which part of an image."""

import numpy as np
import pytest

from rethink_pretrain.analysis.detection_errors import Error, ImageResult, find_errors
from rethink_pretrain.analysis.looking import (
    Album,
    count_objects,
    look_at_data,
    look_at_predictions,
    most_striking,
    rank_images,
)
from rethink_pretrain.analysis.page import Grid, Picture, Table


def annotation(image, category, x, side=10, **more):
    return {"image_id": image, "category_id": category, "bbox": [x, 0, side, side], **more}


CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
DATASET = {
    "images": [{"id": i, "file_name": f"{i}.png", "width": 100, "height": 60} for i in (5, 3, 8, 1)],
    "annotations": [
        *(annotation(5, 2, x) for x in (0, 30)),
        annotation(3, 1, 0, side=20),
        annotation(3, 2, 40, side=40),
        annotation(8, 2, 0, side=50, iscrowd=1),
    ],
    "categories": CATEGORIES,
}


def read(name):
    return np.full((60, 100, 3), int(name.removesuffix(".png")), dtype=np.uint8)


def pictures(sections):
    return [
        picture
        for section in sections
        for block in section.blocks
        if isinstance(block, Grid)
        for picture in block.pictures
    ]


def test_counts_per_category():
    assert count_objects(DATASET).rows == [("dog", 3, 2, 1, 10.0), ("cat", 1, 1, 0, 20.0)]
    empty = {**DATASET, "annotations": []}
    assert count_objects(empty).rows == [("cat", 0, 0, 0, None), ("dog", 0, 0, 0, None)]


@pytest.mark.parametrize(("number", "shown"), [(1, [5]), (2, [5, 1]), (3, [5, 8, 1]), (9, [5, 3, 8, 1])])
def test_images_of_a_data_set_are_spread_over_it(number, shown):
    found = pictures(look_at_data(DATASET, read, number))
    assert [int(picture.caption.partition(".")[0]) for picture in found] == shown
    assert found[0].caption == "5.png, 2 objects"
    assert all(len(picture.panels) == 1 and picture.panels[0].shape == (204, 340, 3) for picture in found)
    # Where nothing is drawn, it is the right image.
    assert [int(picture.panels[0][-1, -1, 0]) for picture in found] == shown


def test_a_caption_counts_crowds_apart():
    found = pictures(look_at_data(DATASET, read, 4))
    assert [picture.caption for picture in found][2:] == ["8.png, 0 objects and 1 crowd", "1.png, 0 objects"]


def result(correct, wrong, num_objects):
    """F1 is 2 correct / (correct + wrong + objects)."""
    return ImageResult([{}] * correct, [Error("background", {}, None)] * wrong, num_objects)


def test_worst_and_best_with_ties_by_id():
    judged = {
        9: result(1, 0, 1),  # 1
        7: result(0, 0, 0),  # nothing to see
        2: result(1, 0, 3),  # 1/2
        4: result(1, 0, 1),  # 1
        6: result(0, 2, 0),  # 0
        3: result(1, 2, 1),  # 1/2
    }
    assert rank_images(judged, 2, 2) == ([6, 2], [4, 9])
    assert rank_images(judged, 5, 5) == ([6, 2, 3], [4, 9])
    assert rank_images(judged, 0, 3) == ([], [4, 9, 2])


def test_the_most_striking_are_the_surest_and_the_largest():
    dataset = {**DATASET, "annotations": DATASET["annotations"][:4]}
    results = [
        annotation(1, 1, 0, score=0.7),
        annotation(8, 1, 0, score=0.9),
        annotation(5, 1, 60, score=0.7),
    ]
    judged = find_errors(dataset, results)
    assert [(e.image_id, e.prediction["score"]) for e in most_striking(judged, "background")] == [
        (8, 0.9),
        (1, 0.7),
        (5, 0.7),
    ]
    sizes = [e.ground_truth["bbox"][2] for e in most_striking(judged, "missed")]
    assert sizes == [40, 20, 10, 10]


def test_mistakes_of_nothing_and_of_everything():
    for results in ([], [{**a, "score": 0.9} for a in DATASET["annotations"] if not a.get("iscrowd")]):
        sections = look_at_predictions(DATASET, results, read, num_images=6, min_score=0.5)
        (kinds, categories) = (block for block in sections[0].blocks if isinstance(block, Table))
        missed = 0 if results else 4
        assert [row[1] for row in kinds.rows] == [0, 0, 0, 0, 0, missed]
        assert {row[0]: row[1:3] for row in categories.rows} == (
            {"dog": (3, 3), "cat": (1, 1)} if results else {"dog": (3, 0), "cat": (1, 0)}
        )
        titles = [section.title for section in sections]
        assert titles == ["By kind and category", "Worst images", "Best images"] + ["Kind: missed"] * (
            not results
        )


def test_a_mistake_is_shown_with_what_is_around_it():
    """The window: 24 px on each side, or 3/4 of the side where that is more, inside the image."""
    pixels = np.dstack([np.tile(np.arange(200, dtype=np.uint8), (100, 1))] * 3)
    images = [{"id": 1, "file_name": "a", "width": 200, "height": 100}]
    dataset = {"images": images, "annotations": [], "categories": CATEGORIES}
    prediction = {"image_id": 1, "category_id": 1, "bbox": [100, 40, 20, 10], "score": 0.5}
    truth, _ = Album(dataset, lambda name: pixels).draw_error(Error("background", prediction, None))
    # x from 76 to 145, y from 16 to 75: 69 px wide and 59 high, enlarged to 340 below the title.
    assert truth.shape[1] == 340 and (truth[-1, 0, 0], truth[-1, -1, 0]) == (76, 144)
    assert abs(truth.shape[0] - 340 * 59 / 69) < 25

    prediction["bbox"] = [0, 0, 200, 100]
    truth, _ = Album(dataset, lambda name: pixels).draw_error(Error("background", prediction, None))
    assert truth[-1, 0, 0] <= 1 and truth[-1, -1, 0] >= 198


def test_pictures_of_mistakes_have_two_panels():
    results = [annotation(5, 1, 0, score=0.9)]
    found = pictures(look_at_predictions(DATASET, results, read, num_images=12, min_score=0.5))
    assert found and all(isinstance(picture, Picture) and len(picture.panels) == 2 for picture in found)
    assert "5.png: cat 90%, labelled dog" in [picture.caption for picture in found]
