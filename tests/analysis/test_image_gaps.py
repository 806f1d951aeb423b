"""Intervals over images from the folders of runs; the bootstrap itself has tests of its own."""

import json

import pytest
from made_runs import make_run

from rethink_pretrain.analysis.image_gaps import RESULTS, ImageGaps
from rethink_pretrain.analysis.runs import read_runs

IMAGES = range(1, 13)


@pytest.fixture
def annotations(tmp_path):
    objects = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 20, 20], "area": 400, "iscrowd": 0}
        for i in IMAGES
    ]
    images = [{"id": i, "width": 64, "height": 64, "file_name": f"{i}.jpg"} for i in IMAGES]
    path = tmp_path / "val.json"
    path.write_text(
        json.dumps({"images": images, "annotations": objects, "categories": [{"id": 1, "name": "a"}]})
    )
    return path


def evaluated(folder, found, ap, **options):
    """A run that finds the objects of the first `found` images, and says that its AP was `ap`."""
    run = make_run(folder, aps=(1.0, ap), **options)
    (run / RESULTS).parent.mkdir()
    results = [
        {"image_id": i, "category_id": 1, "bbox": [0, 0, 20, 20], "score": 0.9 - i / 100}
        for i in IMAGES
        if i <= found
    ]
    (run / RESULTS).write_text(json.dumps(results))
    return run


# Precision is 1 up to the recall of 3/12 and 9/12: 26 and 76 of the 101 recalls.
FEW, MANY = 100 * 26 / 101, 100 * 76 / 101


def test_an_interval(tmp_path, annotations):
    runs = read_runs([evaluated(tmp_path / "a", 3, FEW), evaluated(tmp_path / "b", 9, MANY, weights="w")])
    calls = []
    gaps = ImageGaps(lambda run: annotations, "bbox/AP", 0.95, lambda: calls.append(1))
    gap = gaps(*runs)
    assert gap.basis == "images" and gap.estimate == pytest.approx(FEW - MANY)
    assert gap.low < gap.estimate < gap.high < 0
    assert (calls, gaps.left_out) == ([1], [])


def test_reasons(tmp_path, annotations):
    whole, odd = evaluated(tmp_path / "whole", 9, MANY), evaluated(tmp_path / "odd", 9, 40.0)
    runs = read_runs([whole, odd, make_run(tmp_path / "bare")])
    for run, metric, found, reason in (
        (runs[1], "bbox/AP", annotations, "the results in its folder have 75.25, its metrics 40.00"),
        (runs[2], "bbox/AP", annotations, f"its folder has no {RESULTS}"),
        (runs[0], "bbox/AP", None, "the json of its test set is not at hand (--annotations FILE)"),
        (runs[0], "bbox/AP50", annotations, "bbox/AP50 is no AP of COCO's"),
    ):
        gaps = ImageGaps(lambda run, found=found: found, metric, 0.95)
        assert gaps(run, run) is None
        assert gaps.left_out == [(run.name, f"no interval over images: {reason}")]
