"""A folder per class: what is registered, and what is refused."""

import shutil

import pytest
from conftest import TOY_CONFIG
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from rethink_pretrain.config import load_config
from rethink_pretrain.data import apply_image_folders, describe_dataset
from rethink_pretrain.errors import UserError


def make_folders(root, **classes):
    """train/ with `classes` (name -> number of pictures), val/ with one picture of each."""
    for split in ("train", "val"):
        for name, number in classes.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(number if split == "train" else 1):
                Image.new("RGB", (20, 30), (index, 0, 0)).save(folder / f"{index}.png")
    return root


def config(root):
    cfg = load_config(TOY_CONFIG, ["classifier"])
    cfg.RETHINK.CLASSIFIER.TRAIN_IMAGES = str(root / "train")
    cfg.RETHINK.CLASSIFIER.VAL_IMAGES = str(root / "val")
    return cfg


def test_what_follows_from_the_folders(tmp_path):
    cfg = config(make_folders(tmp_path, dog=3, cat=2))
    apply_image_folders(cfg)
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (("classes_train",), ("classes_val",))
    assert (cfg.RETHINK.CLASSIFIER.NUM_CLASSES, cfg.RETHINK.IMAGES_PER_EPOCH) == (2, 5)
    records = DatasetCatalog.get("classes_train")
    assert [(r["image_id"], r["label"]) for r in records] == [
        *(("cat/0.png", 0), ("cat/1.png", 0)),
        *(("dog/0.png", 1), ("dog/1.png", 1), ("dog/2.png", 1)),
    ]
    assert MetadataCatalog.get("classes_train").classes == ["cat", "dog"]
    described = describe_dataset("classes_train")
    assert (described["images"], described["instances"]) == (5, 5)


def test_below_the_root_of_data_sets(tmp_path, monkeypatch):
    make_folders(tmp_path / "pictures", a=1, b=1)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    cfg = config(tmp_path)
    cfg.RETHINK.CLASSIFIER.TRAIN_IMAGES = "pictures/train"
    cfg.RETHINK.CLASSIFIER.VAL_IMAGES = "pictures/val"
    apply_image_folders(cfg)
    assert len(DatasetCatalog.get("classes_val")) == 2


def test_a_detector_is_left_alone(tmp_path):
    cfg = load_config(TOY_CONFIG)
    apply_image_folders(cfg)
    assert cfg.DATASETS.TRAIN == ("toy_train",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: shutil.rmtree(root / "val"), r"VAL_IMAGES '.*val': No such file"),
        (lambda root: shutil.rmtree(root / "val" / "a"), r"different classes: 'a' is in one of them alone"),
        (lambda root: (root / "train" / "a" / "0.png").unlink(), r"TRAIN_IMAGES .*: Found no valid file"),
    ],
)
def test_what_cannot_be_used(tmp_path, change, message):
    cfg = config(make_folders(tmp_path, a=1, b=1))
    change(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        apply_image_folders(cfg)
    assert "\n" not in str(error.value)


def test_no_folder_given():
    cfg = load_config(TOY_CONFIG, ["classifier"])
    with pytest.raises(UserError, match=r"RETHINK.CLASSIFIER.TRAIN_IMAGES names no folder"):
        apply_image_folders(cfg)
