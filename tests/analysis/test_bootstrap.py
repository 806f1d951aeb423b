"""AP of weighted images against pycocotools on jsons in which they stand as often; then the interval."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools import mask as mask_util
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rethink_pretrain.analysis.bootstrap import (
    CategoryMatches,
    Matches,
    average_precision,
    match,
    paired_bootstrap,
)
from rethink_pretrain.errors import UserError

SIDE = 100  # px


def box_mask(box):
    """A box (x, y, width, height) without its first quarter, as compressed RLE, as in a results json."""
    mask = np.zeros((SIDE, SIDE), np.uint8, order="F")
    x, y, width, height = (round(value) for value in box)
    mask[y : y + height, x : x + width] = 1
    mask[y : y + height // 2, x : x + width // 2] = 0
    rle = mask_util.encode(mask)
    return {**rle, "counts": rle["counts"].decode()}


def random_set(seed, *, images=12, objects=60, predictions=150):
    """A COCO json and results: crowds, empty images, a category without objects; no two equal scores."""
    rng = np.random.default_rng(seed)

    def draw(number):
        corners, sides = rng.integers(0, 8, (number, 2)) * 5, rng.integers(2, 5, (number, 2)) * 10
        boxes = np.hstack([corners, sides]).astype(float)
        image_ids = rng.integers(1, images - 1, number).tolist()  # the last two stay empty
        rows = zip(image_ids, boxes, strict=True)
        return [{"image_id": i, "bbox": box.tolist(), "segmentation": box_mask(box)} for i, box in rows]

    def points(box, jitter):
        xy = np.array(box[:2]) + rng.normal(0, jitter, (17, 2))
        return np.hstack([xy + np.arange(17)[:, None], np.full((17, 1), 2)]).ravel().tolist()

    truth = [
        {
            **one,
            "id": number,
            "category_id": int(rng.integers(1, 4)),
            "area": one["bbox"][2] * one["bbox"][3],
            "iscrowd": int(rng.random() < 0.1),
            "keypoints": points(one["bbox"], 0),
            "num_keypoints": int(rng.integers(0, 5) > 0) * 17,
        }
        for number, one in enumerate(draw(objects), 1)
    ]
    guesses = draw(predictions)
    for one, of_object in zip(guesses, [*truth, *truth], strict=False):  # most near an object
        if rng.random() < 0.7:
            box = np.array(of_object["bbox"]) + [*rng.integers(0, 4, 2), 0, 0]
            one["category_id"] = of_object["category_id"]
            one.update(image_id=of_object["image_id"], bbox=box.tolist(), segmentation=box_mask(box))
    scores = rng.permutation(predictions) / predictions
    results = [
        {
            "category_id": int(rng.integers(1, 5)),
            **one,
            "score": float(score),
            "keypoints": points(one["bbox"], 0.5),
        }
        for one, score in zip(guesses, scores, strict=True)
    ]
    dataset = {
        "images": [{"id": i, "width": SIDE, "height": SIDE} for i in range(1, images + 1)],
        "annotations": truth,
        "categories": [{"id": i, "name": str(i)} for i in range(1, 5)],
    }
    return dataset, results


def with_copies(dataset, results, weights):
    """The same set, in which the image at index i stands weights[i] times, under new ids."""
    ret, new_results = {**dataset, "images": [], "annotations": []}, []
    for image, weight in zip(dataset["images"], weights, strict=True):
        for _ in range(int(weight)):
            new = len(ret["images"]) + 1
            ret["images"].append({**image, "id": new})
            for items, into in ((dataset["annotations"], ret["annotations"]), (results, new_results)):
                into += [{**item, "image_id": new} for item in items if item["image_id"] == image["id"]]
    ret["annotations"] = [{**item, "id": number} for number, item in enumerate(ret["annotations"], 1)]
    return ret, new_results


def pycocotools_ap(dataset, results, task):
    """In percent, of the whole evaluation with all its areas and numbers of detections."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = json.loads(json.dumps(dataset))
        truth.createIndex()
        without = "bbox" if task == "segm" else ""
        results = [{key: one[key] for key in one if key != without} for one in results]
        evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(results))), task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * evaluation.stats[0]


@pytest.fixture
def matched(tmp_path):
    """Writes a set and its results, and matches them."""

    def matched(dataset, results, task="bbox"):
        paths = tmp_path / "truth.json", tmp_path / "results.json"
        for path, content in zip(paths, (dataset, results), strict=True):
            path.write_text(json.dumps(content))
        return match(*paths, task)

    return matched


@pytest.mark.parametrize("task", ["bbox", "segm", "keypoints"])
def test_every_image_once_is_pycocotools(matched, task):
    dataset, results = random_set(0)
    expected = pycocotools_ap(dataset, results, task)
    assert 5 < expected < 95
    assert average_precision(matched(dataset, results, task)) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("task", ["bbox", "segm", "keypoints"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_weights_are_copies_of_images(matched, task, seed):
    dataset, results = random_set(seed)
    matches = matched(dataset, results, task)
    rng = np.random.default_rng(seed)
    for number in (12, 12, 3):
        weights = np.bincount(rng.integers(0, 12, number), minlength=12)
        expected = pycocotools_ap(*with_copies(dataset, results, weights), task)
        got = average_precision(matches, weights)
        assert got == pytest.approx(expected, abs=1e-9) or (np.isnan(got) and expected == -100)


def test_no_more_than_100_predictions_count(matched):
    """The 101st of the image's category is the only good one."""
    dataset, _ = random_set(4)
    truth = {**dataset["annotations"][0], "iscrowd": 0}
    off = {**truth, "bbox": [90, 90, 5, 5]}
    crowded = [{**off, "score": 0.9 - number / 1000} for number in range(100)] + [{**truth, "score": 0.1}]
    dataset["annotations"] = [truth]
    assert average_precision(matched(dataset, crowded)) == 0 == pycocotools_ap(dataset, crowded, "bbox")
    assert average_precision(matched(dataset, crowded[1:])) > 0


def test_empty_results_and_empty_truth(matched):
    dataset, results = random_set(5)
    nothing = matched(dataset, [])
    assert average_precision(nothing) == 0
    gap = paired_bootstrap(matched(dataset, results), nothing, samples=20)
    assert gap.low > 0  # better than nothing in every resample
    only_empty = np.zeros(12)
    only_empty[-1] = 1
    assert np.isnan(average_precision(nothing, only_empty))
    without_objects = matched({**dataset, "annotations": []}, results)
    assert np.isnan(average_precision(without_objects))
    with pytest.raises(UserError, match="no object that counts"):
        paired_bootstrap(without_objects, without_objects)


def test_a_run_against_itself(matched):
    one = matched(*random_set(6))
    assert paired_bootstrap(one, one, samples=30) == (0, 0, 0, "images")


def test_same_resamples_for_both_runs_and_every_call(matched):
    """The interval is that of AP gaps on the images that numpy's generator draws."""
    dataset, results = random_set(7)
    one, other = matched(dataset, results), matched(dataset, results[::2])
    got = paired_bootstrap(one, other, samples=40, seed=3, confidence=0.9)
    rng, gaps = np.random.default_rng(3), []
    for _ in range(40):
        drawn = rng.integers(0, 12, 12)
        weights = np.array([np.count_nonzero(drawn == image) for image in range(12)])
        gaps.append(average_precision(one, weights) - average_precision(other, weights))
    assert got.estimate == average_precision(one) - average_precision(other)
    assert (got.low, got.high) == pytest.approx(np.nanquantile(gaps, [0.05, 0.95]), abs=1e-10)
    assert got == paired_bootstrap(one, other, samples=40, seed=3, confidence=0.9)


def test_runs_on_different_objects(matched):
    dataset, results = random_set(8)
    one = matched(dataset, results)
    fewer_objects = matched({**dataset, "annotations": dataset["annotations"][1:]}, results)
    fewer_images = matched({**dataset, "images": dataset["images"][:-1]}, results)
    for other in (fewer_objects, fewer_images):
        with pytest.raises(UserError, match="not evaluated on the same images and objects"):
            paired_bootstrap(one, other)


def detector(rng, skill, hardness):
    """Matches at one threshold of a detector that finds an object of image i by skill - hardness[i].

    Three objects an image, two false positives; what is found has mostly the higher scores.
    """
    number = len(hardness)
    found = rng.random((number, 3)) < skill - hardness[:, None]
    matched = np.concatenate([found[found], np.zeros(2 * number, bool)])
    scores = np.where(matched, rng.normal(1, 1, len(matched)), rng.normal(0, 1, len(matched)))
    images = np.concatenate([np.nonzero(found)[0], np.repeat(np.arange(number), 2)])
    order = np.argsort(-scores)
    of_category = CategoryMatches(
        1,
        scores[order],
        images[order],
        matched[None, order],
        np.ones((1, len(order)), bool),
        np.full(number, 3),
    )
    return Matches(np.arange(number), [of_category])


def some_images(matches, chosen):
    """What `matches` are on a validation set of the images `chosen` alone."""
    (category,) = matches.categories
    kept = np.isin(category.images, chosen)
    of_category = CategoryMatches(
        1,
        category.scores[kept],
        np.searchsorted(chosen, category.images[kept]),
        category.matched[:, kept],
        category.counted[:, kept],
        category.objects[chosen],
    )
    return Matches(chosen, [of_category])


def test_coverage():
    """Validation sets of 100 images out of 20,000, whose gap is the truth: inside in about 95 % of them."""
    rng = np.random.default_rng(9)
    hardness = rng.uniform(0, 0.4, 20_000)
    one, other = detector(rng, 0.9, hardness), detector(rng, 0.8, hardness)
    truth = average_precision(one) - average_precision(other)
    assert truth > 2
    studies, inside = 60, 0
    for study in range(studies):
        chosen = np.sort(rng.choice(len(hardness), 100, replace=False))
        gap = paired_bootstrap(some_images(one, chosen), some_images(other, chosen), samples=100, seed=study)
        inside += gap.low <= truth <= gap.high
    assert inside / studies > 0.95 - 3 * (0.95 * 0.05 / studies) ** 0.5


@pytest.mark.parametrize(
    ("truth", "results", "message"),
    [
        (None, "[]", r"Cannot read .*truth\.json"),
        ("good", None, r"Cannot read .*results\.json"),
        ("nonsense", "[]", r"truth\.json is not JSON"),
        ("[]", "[]", r"truth\.json is no COCO file"),
        ('{"images": [], "annotations": [], "categories": []}', "[]", "has no images"),
        ("good", "{}", r"results\.json is no COCO results file of task bbox"),
        ("good", '[{"image_id": 1}]', "bbox, category_id, image_id, score is needed"),
        (
            "good",
            '[{"image_id": 99, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]',
            "1 images of .* 99,",
        ),
        ("good", '[{"image_id": 1, "category_id": 9, "bbox": [0, 0, 1, 1], "score": 1}]', "1 categories of"),
        ("good", '[{"image_id": [1], "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}]', "cannot match"),
        ("good", '[{"image_id": 1, "category_id": 1, "bbox": [0, 0], "score": 1}]', "cannot match"),
        ("good", '[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": "a"}]', "cannot match"),
    ],
)
def test_files_that_do_not_fit(tmp_path, truth, results, message):
    paths = tmp_path / "truth.json", tmp_path / "results.json"
    good = json.dumps(random_set(0)[0])
    for path, content in zip(paths, (truth, results), strict=True):
        if content is not None:
            path.write_text(good if content == "good" else content)
    with pytest.raises(UserError, match=message) as raised:
        match(*paths)
    assert "\n" not in str(raised.value)


def test_unknown_task(tmp_path):
    with pytest.raises(ValueError, match="Choose from"):
        match(tmp_path, tmp_path, "boxes")
