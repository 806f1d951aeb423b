"""RethinkCOCOEvaluator against pycocotools, on random ground truth and noisy detections."""

import contextlib
import copy
import gc
import io
import itertools
import json
import logging

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.evaluation import print_csv_format
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rethink_pretrain.config import add_rethink_config
from rethink_pretrain.errors import UserError
from rethink_pretrain.evaluation import RethinkCOCOEvaluator, build_evaluator

CATEGORY_IDS = [20, 3, 90, 7]  # in the json's order; class 0 is id 3
CLASS_TO_ID = sorted(CATEGORY_IDS)
WITHOUT_OBJECTS = 90
DETECTION_NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
KEYPOINT_NAMES = ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]
_names = (f"evaluator_test_{i}" for i in itertools.count())


@pytest.fixture
def register(tmp_path):
    """A COCO dict -> the name of a registered and once loaded dataset, gone again after the test."""
    names = []

    def _register(data: dict) -> str:
        name = next(_names)
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(data))
        register_coco_instances(name, {}, str(path), str(tmp_path))
        names.append(name)
        # What a data loader does: it leaves thing_classes and the id mapping in the metadata.
        if "annotations" in data:
            DatasetCatalog.get(name)
        return name

    yield _register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def log(caplog, monkeypatch):
    """() -> the records so far that contain a string; also after another test called setup_logger."""
    for name in ("rethink_pretrain", "detectron2"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        caplog.set_level(logging.INFO, name)
    return lambda text="": [r for r in caplog.records if text in r.getMessage()]


def ellipse(height: int, width: int, box: np.ndarray) -> np.ndarray:
    """Mask of the ellipse inside an XYXY box."""
    y, x = np.mgrid[:height, :width] + 0.5
    (cx, cy), (rx, ry) = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    return ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1


def random_box(rng, height: int, width: int) -> np.ndarray:
    """XYXY; the size is log-uniform, so that small, medium and large objects all occur."""
    size = np.exp(rng.uniform(np.log(8), np.log(290)))
    w, h = np.minimum(size * rng.uniform(0.7, 1.4, 2), [width - 1, height - 1])
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return np.array([x, y, x + w, y + h])


def coco_dict(images=(), annotations=(), category_ids=CATEGORY_IDS) -> dict:
    categories = [{"id": i, "name": f"category{i}"} for i in category_ids]
    return {"info": {}, "images": list(images), "annotations": list(annotations), "categories": categories}


def annotation(rng, ann_id: int, image: dict, category_id: int) -> dict:
    height, width = image["height"], image["width"]
    box = random_box(rng, height, width)
    x0, y0, x1, y1 = box.tolist()
    is_crowd = int(rng.random() < 0.15)
    if is_crowd:
        rle = mask_util.encode(np.asfortranarray(ellipse(height, width, box)))
        segmentation = {**rle, "counts": rle["counts"].decode()}
    else:
        cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
        segmentation = [[x0, cy, cx, y0, x1, cy, cx, y1]]
    # The area is that of the segmentation, as in COCO.
    rles = segmentation if is_crowd else mask_util.merge(mask_util.frPyObjects(segmentation, height, width))
    return {
        "id": ann_id,
        "image_id": image["id"],
        "category_id": category_id,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": float(mask_util.area(rles)),
        "iscrowd": is_crowd,
        "segmentation": segmentation,
    }


def random_dataset(rng, num_images: int = 24) -> dict:
    """The third image has no object, each third one many."""
    images = [
        {"id": 100 + 7 * i, "file_name": f"{i}.jpg", "height": int(h), "width": int(w)}
        for i, (h, w) in enumerate(rng.integers(150, 301, (num_images, 2)))
    ]
    annotations = []
    for i, image in enumerate(images):
        for _ in range(0 if i == 2 else rng.integers(1, 25 if i % 3 == 0 else 6)):
            category_id = int(rng.choice([c for c in CATEGORY_IDS if c != WITHOUT_OBJECTS]))
            annotations.append(annotation(rng, len(annotations) + 1, image, category_id))
    return coco_dict(images, annotations)


def detections(rng, data: dict, num_noise: int = 8) -> dict[int, Instances]:
    """Image id -> jittered objects, some of the wrong class, and noise; the first image has more than 100."""
    per_image = {}
    for i, image in enumerate(data["images"]):
        height, width = image["height"], image["width"]
        boxes, ids = [], []
        for ann in data["annotations"]:
            if ann["image_id"] == image["id"] and rng.random() < 0.85:
                x, y, w, h = ann["bbox"]
                boxes.append(np.array([x, y, x + w, y + h]) + rng.normal(0, 0.06, 4) * [w, h, w, h])
                ids.append(ann["category_id"] if rng.random() < 0.8 else int(rng.choice(CATEGORY_IDS)))
        for _ in range(150 if i == 0 else num_noise):
            boxes.append(random_box(rng, height, width))
            ids.append(int(rng.choice(CATEGORY_IDS)) if i else 3)
        boxes = np.stack(boxes)
        instances = Instances((height, width))
        instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
        instances.pred_masks = torch.from_numpy(np.stack([ellipse(height, width, b) for b in boxes]))
        # Few distinct scores, so that there are ties.
        instances.scores = torch.from_numpy(rng.integers(1, 40, len(boxes)) / 40).float()
        instances.pred_classes = torch.tensor([CLASS_TO_ID.index(c) for c in ids])
        per_image[image["id"]] = instances
    return per_image


def as_results(per_image: dict[int, Instances], task: str) -> list[dict]:
    """COCO's result format, written without the host."""
    results = []
    for image_id, instances in per_image.items():
        for k in range(len(instances)):
            x0, y0, x1, y1 = instances.pred_boxes.tensor[k].numpy()
            result = {
                "image_id": image_id,
                "category_id": CLASS_TO_ID[int(instances.pred_classes[k])],
                "score": float(instances.scores[k]),
            }
            if task == "segm":
                mask = np.asfortranarray(instances.pred_masks[k].numpy().astype(np.uint8))
                result["segmentation"] = mask_util.encode(mask)
            else:
                result["bbox"] = [float(v) for v in (x0, y0, x1 - x0, y1 - y0)]
            if task == "keypoints":
                points = instances.pred_keypoints[k].numpy() - np.float32([0.5, 0.5, 0])
                result["keypoints"] = points.flatten().tolist()
            results.append(result)
    return results


def oracle(data: dict, results: list[dict], task: str, max_dets=None, img_ids=None) -> COCOeval:
    """pycocotools, summarized."""
    gt = COCO()
    gt.dataset = json.loads(json.dumps(data))
    with contextlib.redirect_stdout(io.StringIO()):
        gt.createIndex()
        coco_eval = COCOeval(gt, gt.loadRes(results), task)
        if max_dets:
            coco_eval.params.maxDets = max_dets
        if img_ids:
            coco_eval.params.imgIds = img_ids
        coco_eval.evaluate()
        coco_eval.accumulate()
        if not max_dets:
            coco_eval.summarize()
    return coco_eval


def expected_percent(value: float) -> float:
    return 100 * value if value >= 0 else float("nan")


def close(value: float):
    return pytest.approx(value, rel=0, abs=1e-9, nan_ok=True)


def process(evaluator, per_image: dict[int, Instances]):
    evaluator.reset()
    for image_id, instances in per_image.items():
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    return evaluator


@pytest.fixture(params=["faster-coco-eval", "hotcoco"])
def ap_by(request, log) -> str:
    """Each package that computes AP; the second has to agree with the first."""
    if request.param == "hotcoco":
        pytest.importorskip("hotcoco")
    yield request.param
    assert not log("hotcoco")


@pytest.fixture(scope="module")
def data() -> dict:
    return random_dataset(np.random.default_rng(0))


@pytest.fixture(scope="module")
def per_image(data) -> dict[int, Instances]:
    return detections(np.random.default_rng(1), data)


def test_the_random_set_covers_what_it_should(data, per_image):
    areas = np.array([a["area"] for a in data["annotations"] if not a["iscrowd"]])
    assert min((areas < 32**2).sum(), ((areas > 32**2) & (areas < 96**2)).sum(), (areas > 96**2).sum()) > 10
    assert sum(a["iscrowd"] for a in data["annotations"]) > 10
    assert len({a["image_id"] for a in data["annotations"]}) < len(data["images"])
    assert max(len(i) for i in per_image.values()) > 100


@pytest.fixture(scope="module")
def oracles(data, per_image) -> dict[str, COCOeval]:
    return {task: oracle(data, as_results(per_image, task), task) for task in ("bbox", "segm")}


def test_all_numbers_equal_pycocotools(register, ap_by, data, per_image, oracles, tmp_path):
    evaluator = RethinkCOCOEvaluator(register(data), output_dir=str(tmp_path / "out"), ap_by=ap_by)
    results = process(evaluator, per_image).evaluate()
    assert list(results) == ["bbox", "segm"]
    for task, res in results.items():
        stats, precision = oracles[task].stats, oracles[task].eval["precision"]
        assert 5 < res["AP"] < 95
        for name, value in zip(DETECTION_NAMES, stats, strict=True):
            assert res[name] == close(expected_percent(value)), (task, name)
        for k, category_id in enumerate(sorted(CATEGORY_IDS)):
            expected = expected_percent(precision[:, :, k, 0, -1].mean())
            assert res[f"AP-category{category_id}"] == close(expected)
            assert np.isnan(expected) == (category_id == WITHOUT_OBJECTS)
        assert [k for k in res if k.startswith("AP-")] == [f"AP-category{i}" for i in CATEGORY_IDS]
    assert results["bbox"]["APl"] != results["segm"]["APl"]

    saved = json.loads((tmp_path / "out/coco_instances_results.json").read_text())
    assert {r["category_id"] for r in saved} == set(CATEGORY_IDS)
    assert oracle(data, saved, "bbox").stats == pytest.approx(oracles["bbox"].stats)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["coco_instances_results.json"]


def test_evaluate_again_is_the_same_and_reset_forgets(register, ap_by, data, per_image):
    evaluator = process(RethinkCOCOEvaluator(register(data), ap_by=ap_by), per_image)
    before = copy.deepcopy(evaluator._predictions)
    first = evaluator.evaluate()
    assert evaluator._predictions == before
    first_values = list(first["bbox"].values())
    first["bbox"].clear()
    assert list(evaluator.evaluate()["bbox"].values()) == close(first_values)
    evaluator.reset()
    assert evaluator.evaluate()["bbox"]["AP"] == 0


def test_limit_of_detections_per_image(register, ap_by, data, per_image):
    evaluator = RethinkCOCOEvaluator(register(data), tasks=("bbox",), max_dets_per_image=30, ap_by=ap_by)
    res = process(evaluator, per_image).evaluate()["bbox"]
    arrays = oracle(data, as_results(per_image, "bbox"), "bbox", max_dets=[1, 10, 30]).eval
    precision = arrays["precision"][:, :, :, 0, 2]
    assert res["AP"] == close(100 * precision[precision > -1].mean())
    for m, name in enumerate(["AR1", "AR10", "AR30"]):
        recall = arrays["recall"][:, :, 0, m]
        assert res[name] == close(100 * recall[recall > -1].mean())
    assert "AR100" not in res
    with pytest.raises(UserError, match="max_dets_per_image is 10"):
        RethinkCOCOEvaluator("unused", max_dets_per_image=10)


def test_a_part_of_the_images(register, ap_by, data, per_image):
    img_ids = [image["id"] for image in data["images"][3:9]]
    evaluator = process(RethinkCOCOEvaluator(register(data), tasks=("bbox",), ap_by=ap_by), per_image)
    expected = oracle(data, as_results(per_image, "bbox"), "bbox", img_ids=img_ids).stats
    assert evaluator.evaluate(img_ids)["bbox"]["AP"] == close(100 * expected[0])


def test_main_process_gathers_and_the_others_return_nothing(register, data, per_image, oracles, monkeypatch):
    evaluator = process(RethinkCOCOEvaluator(register(data), tasks=("bbox",)), per_image)
    half = evaluator._predictions[12:]
    del evaluator._predictions[12:]
    monkeypatch.setattr(comm, "gather", lambda predictions, dst: [predictions, half])
    assert evaluator.evaluate()["bbox"]["AP"] == close(100 * oracles["bbox"].stats[0])
    monkeypatch.setattr(comm, "gather", lambda predictions, dst: [])
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert evaluator.evaluate() == {}


def empty_instances(data) -> dict[int, Instances]:
    def empty(image):
        instances = Instances((image["height"], image["width"]))
        instances.pred_boxes, instances.scores = Boxes(torch.zeros(0, 4)), torch.zeros(0)
        instances.pred_classes = torch.zeros(0, dtype=torch.int64)
        instances.pred_masks = torch.zeros(0, *instances.image_size, dtype=torch.bool)
        return instances

    return {image["id"]: empty(image) for image in data["images"]}


def warnings(log) -> list[str]:
    records = [r for r in log() if r.name.startswith("rethink_pretrain")]
    return [r.getMessage() for r in records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("processed", [True, False])
def test_no_predictions_are_zero_except_what_the_ground_truth_leaves_undefined(
    register, data, processed, log
):
    no_large = {**data, "annotations": [a for a in data["annotations"] if a["area"] < 96**2]}
    for ann in no_large["annotations"]:
        ann.update(keypoints=[1.0, 1.0, 2] * 17, num_keypoints=17)
    evaluator = RethinkCOCOEvaluator(register(no_large), tasks=("bbox", "segm", "keypoints"))
    results = process(evaluator, empty_instances(no_large) if processed else {}).evaluate()
    assert warnings(log) == [f"No predictions on {evaluator._metadata.name}: AP is 0."]
    undefined = {"APl", "ARl", f"AP-category{WITHOUT_OBJECTS}"}
    for task, names in {
        "bbox": DETECTION_NAMES,
        "segm": DETECTION_NAMES,
        "keypoints": KEYPOINT_NAMES,
    }.items():
        assert set(results[task]) == {*names, *(f"AP-category{i}" for i in CATEGORY_IDS)}
        for name, value in results[task].items():
            assert value == close(float("nan") if name in undefined else 0.0), (task, name)


@pytest.mark.parametrize("has_crowds", [True, False])
@pytest.mark.parametrize("has_predictions", [True, False])
def test_without_objects_all_is_undefined(register, data, per_image, has_crowds, has_predictions, log):
    crowds = [a for a in data["annotations"] if a["iscrowd"]] if has_crowds else []
    evaluator = RethinkCOCOEvaluator(register(coco_dict(data["images"], crowds)))
    results = process(evaluator, per_image if has_predictions else {}).evaluate()
    (warning,) = warnings(log)
    assert "has no objects" in warning
    assert all(np.isnan(list(res.values())).all() and len(res) == 16 for res in results.values())


def test_a_json_without_annotations_only_saves_the_predictions(register, data, per_image, tmp_path):
    test_set = {k: v for k, v in data.items() if k != "annotations"}
    evaluator = RethinkCOCOEvaluator(register(test_set), tasks=("bbox",), output_dir=str(tmp_path))
    assert process(evaluator, per_image).evaluate() == {}
    saved = json.loads((tmp_path / "coco_instances_results.json").read_text())
    # The ids also without the metadata's mapping, which only a loaded dataset has.
    expected = [CLASS_TO_ID[k] for instances in per_image.values() for k in instances.pred_classes.tolist()]
    assert [r["category_id"] for r in saved] == expected


def random_keypoints(rng, data: dict) -> dict[int, Instances]:
    """Adds 17 keypoints to every object of `data`, some objects without a visible one; returns detections."""
    for ann in data["annotations"]:
        x, y, w, h = ann["bbox"]
        points = np.column_stack([rng.uniform(0, 1, (17, 2)) * [w, h] + [x, y], rng.integers(0, 3, 17)])
        points[:, 2] *= rng.random() > 0.1
        ann.update(keypoints=points.flatten().tolist(), num_keypoints=int((points[:, 2] > 0).sum()))
    per_image = detections(rng, data, num_noise=2)
    for image_id, instances in per_image.items():
        anns = [a for a in data["annotations"] if a["image_id"] == image_id]
        points = rng.uniform(0, 150, (len(instances), 17, 3))
        for k in range(min(len(anns), len(instances))):
            noise = rng.normal(0, 0.04, (17, 2)) * anns[k]["bbox"][2:]
            points[k, :, :2] = np.reshape(anns[k]["keypoints"], (17, 3))[:, :2] + noise + 0.5
            instances.pred_classes[k] = CLASS_TO_ID.index(anns[k]["category_id"])
        instances.pred_keypoints = torch.from_numpy(points).float()
    return per_image


def test_keypoints_equal_pycocotools(register, ap_by):
    rng = np.random.default_rng(2)
    data = random_dataset(rng, num_images=16)
    per_image = random_keypoints(rng, data)
    coco_eval = oracle(data, as_results(per_image, "keypoints"), "keypoints")
    evaluator = process(RethinkCOCOEvaluator(register(data), tasks=("keypoints",), ap_by=ap_by), per_image)
    res = evaluator.evaluate()["keypoints"]
    assert 5 < res["AP"] < 95
    for name, value in zip(KEYPOINT_NAMES, coco_eval.stats, strict=True):
        assert res[name] == close(expected_percent(value)), name
    for k, category_id in enumerate(sorted(CATEGORY_IDS)):
        expected = expected_percent(coco_eval.eval["precision"][:, :, k, 0, -1].mean())
        assert res[f"AP-category{category_id}"] == close(expected)
    # Larger sigmas (COCO's are 0.025 to 0.107) forgive more.
    evaluator._kpt_oks_sigmas = [0.5] * 17
    assert evaluator.evaluate()["keypoints"]["AP"] > res["AP"]
    evaluator._kpt_oks_sigmas = [0.5] * 5
    with pytest.raises(UserError, match=r"\[17\] keypoints per object.*5 sigmas"):
        evaluator.evaluate()


def test_host_prints_the_results(register, data, per_image, log):
    results = process(RethinkCOCOEvaluator(register(data)), per_image).evaluate()
    print_csv_format(results)
    lines = [r.getMessage() for r in log("copypaste: ")]
    assert lines[::3] == ["copypaste: Task: bbox", "copypaste: Task: segm"]
    assert lines[1] == "copypaste: " + ",".join(DETECTION_NAMES)
    assert lines[2].startswith(f"copypaste: {results['bbox']['AP']:.4f},")


def test_table_of_categories_is_in_the_order_of_the_json(register, data, per_image, log):
    results = process(RethinkCOCOEvaluator(register(data)), per_image).evaluate()
    table = log("AP per category")[-1].getMessage().splitlines()[1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert cells[0] == ["category", "objects", "bbox AP", "segm AP"]
    for category_id, row in zip(CATEGORY_IDS, cells[2:], strict=True):
        objects = [a for a in data["annotations"] if a["category_id"] == category_id and not a["iscrowd"]]
        aps = [f"{results[task][f'AP-category{category_id}']:.3f}" for task in ("bbox", "segm")]
        assert row == [f"category{category_id}", str(len(objects)), *aps]


def test_proposals_stay_the_hosts_business(register, data):
    evaluator = RethinkCOCOEvaluator(register(data))
    evaluator.reset()
    for image in data["images"]:
        boxes = [a["bbox"] for a in data["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
        boxes = torch.tensor(boxes).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        proposals = Instances((image["height"], image["width"]))
        proposals.proposal_boxes, proposals.objectness_logits = Boxes(boxes), torch.zeros(len(boxes))
        evaluator.process([{"image_id": image["id"]}], [{"proposals": proposals}])
    results = evaluator.evaluate()
    assert list(results) == ["box_proposals"]
    assert results["box_proposals"]["AR@1000"] == pytest.approx(100)


def test_a_class_out_of_range_is_an_error(register, data, per_image):
    name = register(data)
    bad = per_image[data["images"][0]["id"]][:1]
    bad.pred_classes = torch.tensor([4])
    evaluator = process(RethinkCOCOEvaluator(name), {100: bad})
    with pytest.raises(UserError, match=rf"image 100 has class 4, but {name} has 4 classes, from 0"):
        evaluator.evaluate()
    assert gc.isenabled()  # it rests during an evaluation


def test_a_task_without_its_field_is_an_error(register, data, per_image):
    boxes_only = per_image[data["images"][0]["id"]][:1]
    boxes_only.remove("pred_masks")
    evaluator = process(RethinkCOCOEvaluator(register(data)), {100: boxes_only})
    with pytest.raises(UserError, match="Task 'segm' needs pred_masks"):
        evaluator.evaluate()


@pytest.mark.parametrize("tasks", ["bbox", ("bbox", "masks")])
def test_unknown_task(tasks):
    with pytest.raises(UserError, match=r"Choose from \['bbox', 'keypoints', 'segm'\]"):
        RethinkCOCOEvaluator("unused", tasks=tasks)


def test_build_evaluator_reads_the_config(register, data, tmp_path):
    name, cfg = register(data), get_cfg()
    add_rethink_config(cfg)
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    cfg.MODEL.MASK_ON = True
    evaluator = build_evaluator(cfg, name)
    assert evaluator._tasks == ("bbox", "segm")
    assert evaluator._output_dir == str(tmp_path / "run/inference")
    cfg.MODEL.MASK_ON, cfg.MODEL.KEYPOINT_ON = False, True
    cfg.TEST.KEYPOINT_OKS_SIGMAS = [0.1] * 17
    evaluator = build_evaluator(cfg, name, str(tmp_path / "tta"))
    assert evaluator._tasks == ("bbox", "keypoints")
    assert evaluator._kpt_oks_sigmas == [0.1] * 17
    assert evaluator._output_dir == str(tmp_path / "tta")


def test_build_evaluator_lists_the_valid_types(register, data):
    name = register(data)
    MetadataCatalog.get(name).__dict__["evaluator_type"] = "lvis"
    with pytest.raises(
        UserError,
        match=r"evaluator_type 'lvis'. Choose from \['classification', 'coco', 'coco_panoptic_seg', ",
    ):
        build_evaluator(get_cfg(), name)
