"""Each type of evaluator on a tiny data set, against values worked out by hand."""

import itertools
import json
import logging
import sys

import numpy as np
import pytest
import torch
from detectron2 import config as host_config
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances, register_pascal_voc
from detectron2.evaluation import PascalVOCDetectionEvaluator
from detectron2.structures import Boxes, Instances
from PIL import Image

from rethink_pretrain.config import add_rethink_config
from rethink_pretrain.data import register_subset
from rethink_pretrain.errors import UserError
from rethink_pretrain.evaluation import build_evaluator

CLASSES = ("cat", "dog", "bird")  # no split here has a bird that counts
# Image -> (class, 1-based and inclusive XYXY, difficult)
VOC_OBJECTS = {
    "2008_000001": [("cat", (11, 11, 50, 50), 0)],
    "2008_000002": [("cat", (1, 1, 40, 30), 0), ("dog", (41, 31, 80, 60), 0)],
    "2008_000003": [("dog", (11, 11, 50, 50), 0), ("cat", (51, 1, 80, 30), 1)],
    "2008_000004": [],
}
SIZE = (60, 80)  # height, width
_names = (f"build_test_{i}" for i in itertools.count())


def get_cfg() -> CfgNode:
    """The host's config with our keys."""
    cfg = host_config.get_cfg()
    add_rethink_config(cfg)
    return cfg


@pytest.fixture
def new_name():
    """() -> a data set name, free again after the test."""
    names = []

    def _new_name() -> str:
        names.append(next(_names))
        return names[-1]

    yield _new_name
    for name in [name for name in DatasetCatalog.list() if name.startswith(tuple(names))]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def log(caplog, monkeypatch):
    """() -> our messages so far; also after another test called setup_logger."""
    monkeypatch.setattr(logging.getLogger("rethink_pretrain"), "propagate", True)
    caplog.set_level(logging.INFO, "rethink_pretrain")
    return lambda: [r.getMessage() for r in caplog.records if r.name.startswith("rethink_pretrain")]


def write_voc(root, objects=VOC_OBJECTS) -> None:
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    (root / "ImageSets/Main/val.txt").write_text("".join(f"{image}\n" for image in objects))
    for image, rows in objects.items():
        Image.new("RGB", SIZE[::-1]).save(root / f"JPEGImages/{image}.jpg")
        xml = f"<size><width>{SIZE[1]}</width><height>{SIZE[0]}</height><depth>3</depth></size>"
        for name, box, difficult in rows:
            corners = "".join(
                f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
            )
            xml += f"<object><name>{name}</name><pose>Left</pose><truncated>0</truncated>"
            xml += f"<difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"
        (root / f"Annotations/{image}.xml").write_text(f"<annotation>{xml}</annotation>")


@pytest.fixture
def voc(tmp_path, new_name):
    """(year, ...) -> the name of a registered Pascal VOC split in a folder of its own."""

    def _voc(year: int = 2012, objects=VOC_OBJECTS) -> str:
        name = new_name()
        write_voc(tmp_path / name, objects)
        register_pascal_voc(name, str(tmp_path / name), "val", year, CLASSES)
        MetadataCatalog.get(name).set(evaluator_type="pascal_voc")
        return name

    return _voc


def instances(rows: list) -> Instances:
    """From (class, 0-based XYXY, score) rows."""
    ret = Instances(SIZE)
    ret.pred_boxes = Boxes(torch.tensor([box for _, box, _ in rows], dtype=torch.float32).reshape(-1, 4))
    ret.pred_classes = torch.tensor([k for k, _, _ in rows], dtype=torch.int64)
    ret.scores = torch.tensor([score for _, _, score in rows])
    return ret


def evaluate(evaluator, predictions: dict) -> dict:
    """With image id -> rows of `instances`."""
    evaluator.reset()
    for image_id, rows in predictions.items():
        evaluator.process([{"image_id": image_id}], [{"instances": instances(rows)}])
    return evaluator.evaluate()


def loaded_objects(name: str) -> dict:
    """Perfect predictions: what the host's loader says is there."""
    return {
        record["image_id"]: [(a["category_id"], a["bbox"], 0.9) for a in record["annotations"]]
        for record in DatasetCatalog.get(name)
    }


@pytest.mark.parametrize("year", [2007, 2012])
def test_voc_perfect(voc, year):
    name = voc(year)
    perfect = loaded_objects(name)
    evaluator = build_evaluator(get_cfg(), name)
    assert evaluate(evaluator, perfect) == {"bbox": pytest.approx({"AP": 100, "AP50": 100, "AP75": 100})}
    del perfect["2008_000003"][1]  # difficult: neither found nor missed
    assert evaluate(evaluator, perfect) == {"bbox": pytest.approx({"AP": 100, "AP50": 100, "AP75": 100})}


@pytest.mark.parametrize("year, half, quarter", [(2012, 50, 25), (2007, 100 * 6 / 11, 50 * 6 / 11)])
def test_voc_half_right(voc, year, half, quarter):
    """Cats: a wrong one before one of two. Dogs: one of two, of IoU 25 / 40, right up to 0.6."""
    predictions = {
        "2008_000001": [(0, (10, 10, 50, 50), 0.9)],
        "2008_000002": [],
        "2008_000003": [(1, (10, 10, 50, 35), 0.8)],
        "2008_000004": [(0, (10, 10, 50, 50), 0.95)],
    }
    results = evaluate(build_evaluator(get_cfg(), voc(year)), predictions)
    ap = {"AP50": (quarter + half) / 2, "AP75": quarter / 2, "AP": (quarter + half * 3 / 10) / 2}
    assert results == {"bbox": pytest.approx(ap)}
    assert all(type(value) is float for value in results["bbox"].values())


@pytest.mark.parametrize("processed", [True, False])
def test_voc_without_predictions_is_zero(voc, processed):
    predictions = {image: [] for image in VOC_OBJECTS} if processed else {}
    results = evaluate(build_evaluator(get_cfg(), voc()), predictions)
    assert results == {"bbox": {"AP": 0, "AP50": 0, "AP75": 0}}


def test_voc_class_without_objects_does_not_count(voc, log):
    name = voc()
    predictions = loaded_objects(name)
    predictions["2008_000004"].append((2, (0, 0, 20, 20), 0.9))
    with np.errstate(invalid="ignore"):
        host = evaluate(PascalVOCDetectionEvaluator(name), predictions)
    assert np.isnan(host["bbox"]["AP"])  # why ours exists
    evaluator = build_evaluator(get_cfg(), name)
    assert evaluate(evaluator, predictions)["bbox"]["AP"] == pytest.approx(100)
    assert evaluator.evaluate()["bbox"]["AP50"] == pytest.approx(100)  # and again the same
    assert log() == [f"{name} has objects of 2 of its 3 classes: AP is the mean over these."] * 2


def test_voc_without_objects_is_undefined(voc):
    nothing = {image: [(n, box, 1) for n, box, _ in rows] for image, rows in VOC_OBJECTS.items()}
    name = voc(objects=nothing)
    results = evaluate(build_evaluator(get_cfg(), name), loaded_objects(name))
    assert list(results["bbox"]) == ["AP", "AP50", "AP75"]
    assert np.isnan(list(results["bbox"].values())).all()


def test_voc_annotation_that_the_host_cannot_read(voc):
    name = voc(objects={"2011_000001": [("cat", (1, 1, 45.7, 30), 0)]})
    with pytest.raises(UserError, match=r"2011_000001.xml: .* cannot read it .*45.7"):
        evaluate(build_evaluator(get_cfg(), name), {})


def test_voc_subset_is_refused_before_and_after_loading(voc):
    name = voc()
    subset = f"{name}@2"
    register_subset(subset)
    for load in (False, True):
        if load:
            assert len(DatasetCatalog.get(subset)) == len(MetadataCatalog.get(subset).subset_image_ids) == 2
        with pytest.raises(UserError, match=f"'{subset}' is a subset.* counts the whole split"):
            build_evaluator(get_cfg(), subset)
    other = voc()
    MetadataCatalog.get(other).set(subset_image_ids=["2008_000001"])
    with pytest.raises(UserError, match="is a subset"):
        build_evaluator(get_cfg(), other)


@pytest.fixture
def panoptic(tmp_path, new_name):
    """(evaluator_type) -> the name of a set of two images: a COCO json, and label maps of two classes.

    In both maps the left half is 0 and the right half 1; the last row of the second is to be ignored (255).
    """

    def _panoptic(evaluator_type: str) -> str:
        name = new_name()
        labels = np.zeros((2, 4, 8), np.uint8)
        labels[:, :, 4:] = 1
        labels[1, -1] = 255
        for i, image in enumerate(labels):
            Image.fromarray(image).save(tmp_path / f"labels{i}.png")
        # One object of 20 x 20 px per image.
        images = [{"id": i + 1, "file_name": f"{i}.jpg", "height": 60, "width": 80} for i in range(2)]
        objects = [
            {
                "id": i + 1,
                "image_id": i + 1,
                "category_id": 7,
                "bbox": [10, 10, 20, 20],
                "area": 400,
                "iscrowd": 0,
            }
            for i in range(2)
        ]
        data = {
            "info": {},
            "images": images,
            "annotations": objects,
            "categories": [{"id": 7, "name": "cat"}],
        }
        (tmp_path / "instances.json").write_text(json.dumps(data))
        records = [
            {
                "file_name": f"{i}.jpg",
                "image_id": i + 1,
                "sem_seg_file_name": str(tmp_path / f"labels{i}.png"),
            }
            for i in range(2)
        ]
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(
            evaluator_type=evaluator_type,
            json_file=str(tmp_path / "instances.json"),
            thing_dataset_id_to_contiguous_id={7: 0},
            stuff_classes=["grass", "sky"],
            stuff_dataset_id_to_contiguous_id={1: 0, 2: 1},
            ignore_label=255,
        )
        return name

    return _panoptic


def scores(labels: np.ndarray) -> torch.Tensor:
    """(2, H, W) logits whose argmax is `labels`."""
    return torch.stack([torch.from_numpy(labels == k).float() for k in range(2)])


RIGHT = np.repeat([[0, 0, 0, 0, 1, 1, 1, 1]], 4, axis=0)


def evaluate_sem_seg(evaluator, labels: np.ndarray) -> dict:
    """The same prediction for both images; objects only for those that take them."""
    evaluator.reset()
    for i in range(2):
        outputs = {"sem_seg": scores(labels), "instances": instances([(0, (10, 10, 30, 30), 0.9)])}
        evaluator.process([{"file_name": f"{i}.jpg", "image_id": i + 1}], [outputs])
    return evaluator.evaluate()


def test_sem_seg(panoptic, tmp_path):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    evaluator = build_evaluator(cfg, panoptic("sem_seg"))
    perfect = evaluate_sem_seg(evaluator, RIGHT)["sem_seg"]
    assert [perfect[key] for key in ("mIoU", "fwIoU", "mACC", "pACC")] == pytest.approx([100] * 4)
    # All 0: of 28 px that count, 14 are right. IoU 14 / 28 of class 0, which is half of the pixels.
    half = evaluate_sem_seg(evaluator, np.zeros_like(RIGHT))["sem_seg"]
    expected = {
        "mIoU": 25,
        "fwIoU": 25,
        "mACC": 50,
        "pACC": 50,
        "IoU-grass": 50,
        "IoU-sky": 0,
        "ACC-grass": 100,
    }
    assert {key: half[key] for key in expected} == pytest.approx(expected)
    saved = json.loads((tmp_path / "run/inference/sem_seg_predictions.json").read_text())
    assert [(p["file_name"], p["category_id"]) for p in saved] == [("0.jpg", 1), ("1.jpg", 1)]


@pytest.mark.parametrize("has_json", [True, False])
def test_panoptic_without_its_api_is_boxes_and_labels(panoptic, tmp_path, log, monkeypatch, has_json):
    monkeypatch.setitem(sys.modules, "panopticapi", None)
    name, cfg = panoptic("coco_panoptic_seg"), get_cfg()
    if has_json:
        MetadataCatalog.get(name).set(panoptic_json=str(tmp_path / "panoptic.json"))
    cfg.MODEL.META_ARCHITECTURE, cfg.OUTPUT_DIR = "PanopticFPN", str(tmp_path / "run")
    evaluator = build_evaluator(cfg, name)
    assert log() == [f"PQ of {name} is left out: it needs panopticapi, a panoptic json, no subset."]
    results = evaluate_sem_seg(evaluator, np.zeros_like(RIGHT))
    assert list(results) == ["bbox", "sem_seg"]
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["sem_seg"]["mIoU"] == pytest.approx(25)


def test_panoptic_set_with_models_of_one_task(panoptic, tmp_path):
    name, cfg = panoptic("coco_panoptic_seg"), get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    for architecture, task in {"GeneralizedRCNN": "bbox", "SemanticSegmentor": "sem_seg"}.items():
        cfg.MODEL.META_ARCHITECTURE = architecture
        assert list(evaluate_sem_seg(build_evaluator(cfg, name), RIGHT)) == [task]


@pytest.mark.parametrize("architecture", ["RetinaNet", "RethinkRetinaNet"])
def test_one_stage_models_have_boxes_only(panoptic, architecture):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.MASK_ON, cfg.MODEL.KEYPOINT_ON = architecture, True, True
    assert build_evaluator(cfg, panoptic("coco"))._tasks == ("bbox",)


def test_coco_subset_counts_only_its_images(tmp_path, new_name):
    """One object in each of four images; perfect on two, nothing on one, a wrong box on another."""
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 60, "width": 80} for i in range(1, 5)]
    objects = [
        {"id": i, "image_id": i, "category_id": 7, "bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0}
        for i in range(1, 5)
    ]
    data = {"info": {}, "images": images, "annotations": objects, "categories": [{"id": 7, "name": "cat"}]}
    name = new_name()
    (tmp_path / "coco.json").write_text(json.dumps(data))
    register_coco_instances(name, {}, str(tmp_path / "coco.json"), str(tmp_path))
    right = {i: [(0, (10, 10, 30, 30), 0.8)] for i in (2, 3)}
    wrong = {**right, 4: [(0, (50, 30, 60, 50), 0.9)]}
    evaluator = build_evaluator(get_cfg(), name)
    # Precision 1 up to recall 0.5: 51 of the 101 recall thresholds. With the wrong one first, 2/3.
    assert evaluate(evaluator, right)["bbox"]["AP"] == pytest.approx(100 * 51 / 101)
    assert evaluate(evaluator, wrong)["bbox"]["AP"] == pytest.approx(100 * 51 / 101 * 2 / 3)
    MetadataCatalog.get(name).set(subset_image_ids=[2, 3])
    for predictions in (right, wrong):
        assert evaluate(evaluator, predictions)["bbox"]["AP"] == pytest.approx(100)
        assert evaluator.evaluate([1, 2, 3, 4])["bbox"]["AP"] < 51  # asked for, they count
