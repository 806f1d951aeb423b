import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from rethink_pretrain.data import apply_own_data
from rethink_pretrain.data.datasets.own import fit_anchor_scale, object_sizes
from rethink_pretrain.engine import Trainer
from rethink_pretrain.errors import UserError


def odd_ids(document):
    """Categories 7, 14, ..., one of them unused; image ids as text, annotations without most fields."""
    for category in document["categories"]:
        category["id"] *= 7
    document["categories"].append({"id": 3, "name": "never seen"})
    for image in document["images"]:
        image["id"] = str(image["id"])
        del image["width"]
    for annotation in document["annotations"]:
        annotation["category_id"] = float(annotation["category_id"] * 7)
        for key in ("id", "area", "iscrowd"):
            del annotation[key]
    del document["info"], document["licenses"]


def boxes_from_polygons(document):
    """No boxes, ids all alike."""
    kept = [a for a in document["annotations"] if not a["iscrowd"]]
    for annotation in kept:
        del annotation["bbox"]
        annotation["id"] = 1
    document["annotations"] = kept


def untouched(document):
    """Nothing to mend."""


@pytest.fixture
def own(datasets, short_cfg, tmp_path):
    """A function that rewrites the toy set and lets the config point at it."""

    def write(change, splits=("train", "val")):
        for split in ("train", "val"):
            document = json.loads((datasets / "toy" / f"{split}.json").read_text())
            document.setdefault("licenses", [])
            if split in splits:
                change(document)
            (tmp_path / f"{split}.json").write_text(json.dumps(document))
            short_cfg.RETHINK.DATA[f"{split.upper()}_JSON"] = str(tmp_path / f"{split}.json")
            short_cfg.RETHINK.DATA[f"{split.upper()}_IMAGES"] = str(datasets / "toy" / split)
        return short_cfg

    yield write
    for name in ("own_train", "own_val"):
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)


@pytest.mark.slow
@pytest.mark.parametrize("change", [odd_ids, boxes_from_polygons])
def test_odd_files_train_and_are_evaluated(own, change):
    cfg = own(change)
    apply_own_data(cfg)
    trainer = Trainer(cfg)
    trainer.resume_or_load(False)
    metrics = trainer.train()
    assert set(metrics) == {"bbox", "segm"} and metrics["bbox"]["AP"] >= 0


def test_the_config_follows_and_the_file_stays(own, tmp_path):
    cfg = own(odd_ids)
    before = (tmp_path / "train.json").read_bytes()
    apply_own_data(cfg)
    apply_own_data(cfg)
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("own_train",), ("own_val",))
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == cfg.MODEL.RETINANET.NUM_CLASSES == 9
    assert (tmp_path / "train.json").read_bytes() == before
    mended = json.loads((tmp_path / "run" / "data" / "train.json").read_text())
    assert MetadataCatalog.get("own_train").json_file == str(tmp_path / "run" / "data" / "train.json")
    assert len({annotation["id"] for annotation in mended["annotations"]}) == len(mended["annotations"])


def test_a_clean_file_is_used_as_it_is(own, datasets, tmp_path):
    cfg = own(untouched)
    apply_own_data(cfg)
    assert not (tmp_path / "run" / "data").exists()
    document = json.loads((datasets / "toy" / "train.json").read_text())
    objects = {a["image_id"] for a in document["annotations"] if a["iscrowd"] == 0}
    assert len(objects) == cfg.RETHINK.IMAGES_PER_EPOCH


def test_without_paths_nothing_happens(short_cfg):
    before = short_cfg.dump()
    apply_own_data(short_cfg)
    assert short_cfg.dump() == before


def test_three_paths_are_too_few(own):
    cfg = own(untouched)
    cfg.RETHINK.DATA.VAL_IMAGES = ""
    with pytest.raises(UserError, match=r"not given: RETHINK\.DATA\.VAL_IMAGES\.$"):
        apply_own_data(cfg)


def drop_masks(document):
    for annotation in document["annotations"]:
        annotation.pop("segmentation", None)


def rename_a_category(document):
    document["categories"][2]["name"] = "other"


@pytest.mark.parametrize(
    ("change", "splits", "words"),
    [
        (drop_masks, ("train", "val"), r"objects have no segmentation\. Set MODEL\.MASK_ON False"),
        (rename_a_category, ("val",), r"id 3 is .* in .*train\.json and 'other' in .*val\.json"),
        (lambda d: d["annotations"].clear(), ("train",), r"train\.json has no objects"),
        (lambda d: d["images"][0].update(file_name="no.jpg"), ("val",), r"'no\.jpg', which is not in"),
        (lambda d: d["images"][5].update(file_name="../no.jpg"), ("val",), r"'\.\./no\.jpg' leads out"),
        (
            lambda d: d["annotations"][3].update(segmentation=[[1, 2, 3, 4]]),
            ("train",),
            "fewer than 3 points",
        ),
        (lambda d: d["annotations"][3].update(segmentation=[[0, 0, 2e8, 0, 1, 1]]), ("val",), "far larger"),
    ],
)
def test_what_cannot_be_trained_is_one_line(own, change, splits, words):
    with pytest.raises(UserError, match=words) as error:
        apply_own_data(own(change, splits))
    assert "\n" not in str(error.value)


def add_keypoints(document):
    for category in document["categories"]:
        category["keypoints"] = ["nose", "left_eye", "right_eye"]
    for annotation in document["annotations"]:
        annotation["keypoints"] = [*annotation["bbox"][:2], 2] * 3


def test_keypoints_follow_from_the_categories(own):
    cfg = own(add_keypoints)
    cfg.MODEL.KEYPOINT_ON = True
    with pytest.raises(UserError, match="KEYPOINT_OKS_SIGMAS to 3 numbers"):
        apply_own_data(cfg)
    cfg.TEST.KEYPOINT_OKS_SIGMAS = [0.1, 0.1, 0.1]
    apply_own_data(cfg)
    assert cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS == 3
    assert MetadataCatalog.get("own_train").keypoint_flip_map == [("left_eye", "right_eye")]


@pytest.mark.parametrize(
    ("sizes", "scale"),
    [
        ([16] * 100, 1),  # half of the smallest anchor
        ([15] * 100, 0.5),
        ([8] * 100, 0.5),
        ([7] * 100, 0.25),
        ([0.5] * 100, 0.125),  # no further
        ([1] * 4 + [16] * 96, 1),  # below the 5th percentile
        ([1000] * 100, 1),
        ([1100] * 100, 2),
        ([16] * 50 + [2000] * 50, 1),  # the small end goes first
    ],
)
def test_anchor_scale_for_32_to_512_px(sizes, scale):
    assert fit_anchor_scale(sizes, 32, 512) == scale


def test_objects_are_measured_as_training_resizes_them():
    document = {
        "images": [{"id": 1, "width": 200, "height": 100}, {"id": 2, "width": 100, "height": 400}],
        "annotations": [
            {"image_id": 1, "bbox": [0, 0, 4, 9], "iscrowd": 0},
            {"image_id": 2, "bbox": [0, 0, 10, 10], "iscrowd": 0},
            {"image_id": 2, "bbox": [0, 0, 90, 90], "iscrowd": 1},
        ],
    }
    # 100 -> 200 px; and 400 -> 600, because twice as long would be beyond 600
    assert object_sizes(document, 200, 600) == [pytest.approx(12), pytest.approx(15)]
