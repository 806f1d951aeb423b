"""Kinds of mistakes: boxes by hand, and COCO's own matching on random ones."""

import contextlib
import io
from collections import Counter

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rethink_pretrain.analysis.detection_errors import (
    count_errors,
    find_errors,
    judge_image,
    read_results,
)
from rethink_pretrain.errors import UserError


def item(category, x, width=10, score=None, **more):
    """A box of height 10 in a row of them."""
    ret = {"image_id": 1, "category_id": category, "bbox": [x, 0, width, 10], **more}
    return ret if score is None else {**ret, "score": score}


CAT, DOG = 1, 2


@pytest.mark.parametrize(
    ("objects", "predictions", "kinds"),
    [
        pytest.param([item(CAT, 0)], [item(CAT, 0, score=0.9)], [], id="correct"),
        # 10 of 20 px: an IoU of 1/2.
        pytest.param([item(CAT, 0, 20)], [item(CAT, 0, score=0.9)], [], id="at the threshold"),
        pytest.param([item(CAT, 0)], [item(DOG, 0, score=0.9)], ["classification"], id="classification"),
        # Moved by 5 of 10 px: 5 / 15.
        pytest.param([item(CAT, 0)], [item(CAT, 5, score=0.9)], ["localisation"], id="localisation"),
        pytest.param([item(CAT, 0)], [item(DOG, 5, score=0.9)], ["both", "missed"], id="both"),
        pytest.param(
            [item(CAT, 0)], [item(CAT, 0, score=0.8), item(CAT, 1, score=0.9)], ["duplicate"], id="duplicate"
        ),
        # Moved by 9 of 10 px: 1 / 19.
        pytest.param([item(CAT, 0)], [item(CAT, 9, score=0.9)], ["background", "missed"], id="background"),
        pytest.param([], [item(CAT, 0, score=0.9)], ["background"], id="empty image"),
        pytest.param([item(CAT, 0)], [], ["missed"], id="missed"),
        # A cat is met poorly and a dog well: place comes first, and both objects could be had.
        pytest.param(
            [item(CAT, 0), item(DOG, 5)],
            [item(CAT, 5, score=0.9)],
            ["localisation", "missed"],
            id="localisation before classification",
        ),
        # The cat is taken; the second prediction lies on a dog, too.
        pytest.param(
            [item(CAT, 0), item(DOG, 0)],
            [item(CAT, 0, score=0.9), item(CAT, 1, score=0.8)],
            ["classification"],
            id="classification before duplicate",
        ),
        pytest.param([item(CAT, 0, 90, iscrowd=1)], [item(CAT, 5, score=0.9)], [], id="in a crowd"),
        pytest.param(
            [item(CAT, 0, 90, iscrowd=1)], [item(DOG, 5, score=0.9)], ["background"], id="in another's crowd"
        ),
        # The higher score takes the better object, the lower one the other, whatever comes first in the list.
        pytest.param(
            [item(CAT, 0), item(CAT, 2)], [item(CAT, 1, score=0.8), item(CAT, 0, score=0.9)], [], id="two"
        ),
    ],
)
def test_kinds(objects, predictions, kinds):
    result = judge_image(objects, predictions)
    assert [error.kind for error in result.errors] == kinds
    crowds = sum(bool(o.get("iscrowd")) for o in objects)
    assert result.num_objects == len(objects) - crowds


def test_an_error_knows_what_it_is_about():
    cat, dog, wrong = item(CAT, 0), item(DOG, 50), item(DOG, 1, score=0.9)
    confused, missed = judge_image([cat, dog], [wrong]).errors
    assert (confused.kind, confused.prediction, confused.ground_truth) == ("classification", wrong, cat)
    assert (confused.category_id, confused.image_id) == (DOG, 1)
    assert (missed.kind, missed.prediction, missed.ground_truth) == ("missed", None, dog)
    assert (missed.category_id, missed.image_id) == (DOG, 1)


def test_f1():
    """Two of three objects found and one wrong prediction: precision 2/3, recall 2/3."""
    objects = [item(CAT, 0), item(CAT, 20), item(DOG, 40)]
    found = [item(CAT, 0, score=0.9), item(CAT, 20, score=0.9), item(CAT, 70, score=0.6)]
    assert judge_image(objects, found).f1 == pytest.approx(2 / 3)
    # A mistake that explains a missing object leaves it missing.
    assert judge_image([item(CAT, 0)], [item(DOG, 0, score=0.9)]).f1 == 0
    assert judge_image([], []).f1 == 1
    assert judge_image([], [item(CAT, 0, score=0.9)]).f1 == 0


def test_counts_per_category_above_a_score():
    images = [{"id": 1}, {"id": 7}]
    annotations = [item(CAT, 0), item(DOG, 30), item(DOG, 60)]
    dataset = {"images": images, "annotations": annotations, "categories": [{"id": CAT}, {"id": DOG}]}
    results = [item(CAT, 0, score=0.5), item(CAT, 30, score=0.6), item(DOG, 60, score=0.49)]
    judged = find_errors(dataset, results, min_score=0.5)
    assert list(judged) == [1, 7] and judged[7].f1 == 1
    assert count_errors(judged) == {
        CAT: Counter(correct=1, classification=1),
        DOG: Counter(missed=1),
    }


def test_results_of_another_set_are_refused():
    dataset = {"images": [{"id": 2}], "annotations": [], "categories": [{"id": DOG}]}
    with pytest.raises(UserError, match="1 images of the results, such as 1, are not in the json"):
        find_errors(dataset, [item(CAT, 0, score=0.9)])
    dataset["images"] = [{"id": 1}]
    with pytest.raises(UserError, match="1 categories of the results, such as 1, are not in the json"):
        find_errors(dataset, [item(CAT, 0, score=0.9)])


@pytest.mark.parametrize("content", ['{"images": []}', '[{"image_id": 1}]', "[1]", "nonsense"])
def test_files_that_are_no_results(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"results\.json is (no COCO results file|not JSON)"):
        read_results(path)
    with pytest.raises(UserError, match=r"Cannot read .*none\.json"):
        read_results(tmp_path / "none.json")


def random_set(rng):
    """Few places and sizes, so that boxes overlap and IoUs and scores are equal now and then; some crowds."""

    def draw(number):
        corners, sides = rng.integers(0, 8, (number, 2)) * 5, rng.integers(2, 5, (number, 2)) * 10
        categories = rng.integers(1, 4, number).tolist()
        boxes = np.hstack([corners, sides]).astype(float).tolist()
        return [{"category_id": c, "bbox": box} for c, box in zip(categories, boxes, strict=True)]

    images = [{"id": i, "width": 100, "height": 100} for i in range(1, 21)]
    annotations, results = [], []
    for image in images:
        for drawn in draw(10):
            extra = {"iscrowd": int(rng.random() < 0.2), "area": drawn["bbox"][2] * drawn["bbox"][3]}
            annotations.append({**drawn, **extra, "id": len(annotations) + 1, "image_id": image["id"]})
        for drawn in draw(15):
            results.append({**drawn, "image_id": image["id"], "score": float(rng.integers(0, 11) / 10)})
    categories = [{"id": i, "name": str(i)} for i in (1, 2, 3)]
    return {"images": images, "annotations": annotations, "categories": categories}, results


def coco_matches(dataset, results):
    """Correct and wrong results at an IoU of 0.5, by pycocotools; ignored ones are in neither list."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dataset
        truth.createIndex()
        found = truth.loadRes([dict(result) for result in results])
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
    ret = [], []
    for cell in evaluation.evalImgs:
        if cell is None or cell["aRng"] != evaluation.params.areaRng[0]:
            continue
        columns = (cell["dtIds"], cell["dtMatches"][0], cell["dtIgnore"][0])
        for i, match, ignored in zip(*columns, strict=True):
            if not ignored:
                ret[0 if match else 1].append(found.anns[i])
    return ret


def keys_of(results):
    return sorted((r["image_id"], r["category_id"], r["score"], *r["bbox"]) for r in results)


@pytest.mark.parametrize("seed", range(4))
def test_correct_and_ignored_predictions_are_cocos(seed):
    dataset, results = random_set(np.random.default_rng(seed))
    judged = find_errors(dataset, results, min_score=0.3).values()
    shown = [result for result in results if result["score"] >= 0.3]
    correct, wrong = coco_matches(dataset, shown)

    assert len(correct) > 20 and len(wrong) > 20 and len(correct) + len(wrong) < len(shown)
    assert keys_of(p for result in judged for p in result.correct) == keys_of(correct)
    false = (error.prediction for result in judged for error in result.errors if error.prediction)
    assert keys_of(false) == keys_of(wrong)
