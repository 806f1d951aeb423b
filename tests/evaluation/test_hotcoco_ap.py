"""When hotcoco's numbers are believed, on boxes of which one is found perfectly."""

import json
import logging
import sys
from collections.abc import Sequence

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import Boxes, Instances

from rethink_pretrain.errors import UserError
from rethink_pretrain.evaluation import RethinkCOCOEvaluator, coco, hotcoco_ap

NAME = "hotcoco_ap_test"


@pytest.fixture
def dataset(tmp_path):
    data = {
        # More than are sampled; a single one has a detection.
        "images": [{"id": i, "height": 60, "width": 60, "file_name": f"{i}.jpg"} for i in range(1, 301)],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0}
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    path = tmp_path / "data.json"
    path.write_text(json.dumps(data))
    register_coco_instances(NAME, {}, str(path), str(tmp_path))
    DatasetCatalog.get(NAME)
    yield NAME
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


@pytest.fixture
def evaluate(dataset, caplog, monkeypatch):
    """(images) -> AP by an evaluator that asks for hotcoco, one detection on each, right on the first."""
    pytest.importorskip("hotcoco")
    monkeypatch.setattr(logging.getLogger("rethink_pretrain"), "propagate", True)

    def _evaluate(images: Sequence[int] = (1,)) -> float:
        evaluator = RethinkCOCOEvaluator(dataset, tasks=("bbox",), ap_by="hotcoco")
        evaluator.reset()
        boxes, scores, classes = torch.tensor([[10.0, 10, 30, 30]]), torch.tensor([0.9]), torch.tensor([0])
        found = Instances((60, 60), pred_boxes=Boxes(boxes), scores=scores, pred_classes=classes)
        for image_id in images:
            evaluator.process([{"image_id": image_id}], [{"instances": found}])
        return evaluator.evaluate()["bbox"]["AP"]

    return _evaluate


def test_its_numbers_are_used_in_silence(evaluate, caplog, capfd, monkeypatch):
    used = []
    monkeypatch.setattr(coco, "run_hotcoco", lambda *a: used.append(hotcoco_ap.run_hotcoco(*a)) or used[-1])
    assert evaluate() == pytest.approx(100)
    assert len(used) == 2  # the sample, then all images
    assert "hotcoco" not in caplog.text
    assert capfd.readouterr().out == ""


def test_a_disagreement_falls_back_with_a_warning(evaluate, caplog, monkeypatch):
    class Wrong:
        stats = [0.5] * 12

    monkeypatch.setattr(coco, "run_hotcoco", lambda *args: Wrong())
    assert evaluate() == pytest.approx(100)
    assert "disagree in bbox on 1 images" in caplog.text


def test_a_failure_falls_back_with_a_warning(evaluate, caplog, monkeypatch):
    def fail(*args):
        raise ValueError("odd ground truth")

    monkeypatch.setattr(coco, "run_hotcoco", fail)
    assert evaluate() == pytest.approx(100)
    assert "hotcoco failed (ValueError: odd ground truth)" in caplog.text


def test_a_failure_on_all_images_falls_back_too(evaluate, caplog, monkeypatch):
    def fail(ground_truth, results, params):
        if len(params.imgIds) > hotcoco_ap.NUM_SAMPLED:
            raise ValueError("odd ground truth")
        return hotcoco_ap.run_hotcoco(ground_truth, results, params)

    monkeypatch.setattr(coco, "run_hotcoco", fail)
    assert evaluate(range(1, 201)) == pytest.approx(100)
    assert "hotcoco failed (ValueError: odd ground truth)" in caplog.text


def test_the_sample_is_of_images_with_detections(evaluate, caplog, monkeypatch):
    class Wrong:
        stats = [0.5] * 12

    monkeypatch.setattr(coco, "run_hotcoco", lambda *args: Wrong())
    assert evaluate([150]) == 0  # a false one; all objects are in image 1
    assert "disagree in bbox on 1 images" in caplog.text


def test_a_missing_package_and_a_wrong_name_are_told(dataset, monkeypatch):
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    with pytest.raises(UserError, match="`pip install hotcoco`"):
        RethinkCOCOEvaluator(dataset, ap_by="hotcoco")
    with pytest.raises(UserError, match=r"COCO_EVAL is 'x'\. Choose from \['faster-coco-eval', 'hotcoco'\]"):
        RethinkCOCOEvaluator(dataset, ap_by="x")


def test_what_it_is_given():
    result = {
        "image_id": 7,
        "category_id": 3,
        "bbox": [1.5, 2, 30, 40],
        "score": 0.25,
        "segmentation": {"size": 1},
    }
    found = hotcoco_ap._as_input([result, {**result, "image_id": 2**40}], "bbox")
    assert found.tolist() == [[7, 1.5, 2, 30, 40, 0.25, 3], [2**40, 1.5, 2, 30, 40, 0.25, 3]]
    (masks,) = hotcoco_ap._as_input([result], "segm")
    assert masks == {key: value for key, value in result.items() if key != "bbox"}
    assert "bbox" in result


def test_the_sample_is_spread_over_all_images():
    ids = list(range(10, 5010))
    chosen = hotcoco_ap.sample(ids)
    assert (len(chosen), chosen[0], chosen[-1]) == (100, 10, 5009)
    assert hotcoco_ap.sample([7, 9]) == [7, 9]
    assert hotcoco_ap.sample([]) == []


def test_agreement_is_to_a_billionth_and_undefined_is_minus_one():
    assert hotcoco_ap.agree([0.5, -1], [0.5 + 5e-10, -1])
    assert not hotcoco_ap.agree([0.5, -1], [0.5 + 5e-9, -1])
    assert not hotcoco_ap.agree([0.5, -1], [0.5, 0])
    assert not hotcoco_ap.agree([0.5], [0.5, 0.5])
