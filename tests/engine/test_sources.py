import json

import numpy as np
import pytest
import yaml
from conftest import TOY_CONFIG
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image

from rethink_pretrain.config import load_config
from rethink_pretrain.data.datasets.subsets import choose
from rethink_pretrain.engine.sources import load_run, read_dataset, read_picture
from rethink_pretrain.errors import UserError


def test_a_run_has_its_own_folder_and_takes_keys_on_top(tmp_path):
    (tmp_path / "config.yaml").write_text(load_config(TOY_CONFIG, opts=["OUTPUT_DIR", "elsewhere"]).dump())
    cfg = load_run(tmp_path, opts=["TEST.DETECTIONS_PER_IMAGE", "7"])
    assert str(tmp_path) == cfg.OUTPUT_DIR and cfg.TEST.DETECTIONS_PER_IMAGE == 7
    again = load_config(TOY_CONFIG, opts=["OUTPUT_DIR", str(tmp_path), "TEST.DETECTIONS_PER_IMAGE", "7"])
    assert yaml.safe_load(cfg.dump()) == yaml.safe_load(again.dump())


def test_a_subset_is_that_of_the_loader(datasets):
    whole, _ = read_dataset("toy_val")
    document, folder = read_dataset("toy_val@5@seed1")
    ids = {image["id"] for image in document["images"]}
    assert ids == set(choose([image["id"] for image in whole["images"]], 5, 1))
    truth = json.loads((datasets / "toy" / "val.json").read_text())
    assert whole == truth
    wanted = [a for a in truth["annotations"] if a["image_id"] in ids]
    assert document["annotations"] == wanted and document["categories"] == truth["categories"]
    assert (folder / document["images"][0]["file_name"]).is_file()


@pytest.fixture
def other_format():
    """A set without a json, as VOC is; it takes its names with it."""
    box = {"bbox": [1.0, 2.0, 5.0, 8.0], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1}
    record = {
        "file_name": "/somewhere/a.jpg",
        "image_id": "a",
        "height": 20,
        "width": 30,
        "annotations": [box],
    }
    DatasetCatalog.register("other_format", lambda: [record])
    MetadataCatalog.get("other_format").set(thing_classes=["cat", "dog"])
    yield "other_format"
    DatasetCatalog.remove("other_format")
    MetadataCatalog.remove("other_format")


def test_a_set_of_another_format_is_converted(other_format):
    document, folder = read_dataset(other_format)
    (annotation,), (image,) = document["annotations"], document["images"]
    assert annotation["bbox"] == [1, 2, 4, 6] and annotation["image_id"] == image["id"]
    names = {category["id"]: category["name"] for category in document["categories"]}
    assert names[annotation["category_id"]] == "dog"
    assert str(folder / image["file_name"]) == "/somewhere/a.jpg"


def test_pictures(tmp_path):
    """Whatever a file stores, it is seen as 8-bit RGB."""
    gray = np.tile(np.arange(0, 64, dtype=np.uint8), (48, 1))
    rgb = np.dstack([gray, gray[:, ::-1], 0 * gray])
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    Image.fromarray(rgb).quantize(64).save(tmp_path / "palette.png")
    Image.fromarray(np.dstack([rgb, gray])).save(tmp_path / "alpha.png")
    Image.fromarray(gray.astype(np.uint16) * 1000).save(tmp_path / "deep.png")
    np.save(tmp_path / "many.npy", np.dstack([rgb, rgb]))
    for name in ("rgb.png", "alpha.png", "many.npy"):
        assert (read_picture(tmp_path / name) == rgb).all()
    assert np.abs(read_picture(tmp_path / "palette.png").astype(int) - rgb).max() < 16
    deep = read_picture(tmp_path / "deep.png")
    assert deep.shape == (48, 64, 3) and (deep.min(), deep.max()) == (0, 255) and deep[0, 31, 0] in (124, 125)

    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees
    Image.fromarray(rgb).save(tmp_path / "turned.jpg", exif=turned)
    assert read_picture(tmp_path / "turned.jpg").shape == (64, 48, 3)


def test_pictures_that_are_none(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    Image.fromarray(np.zeros((64, 64, 3), dtype=np.uint8)).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    for name in ("text.jpg", "cut.png", "none.png"):
        with pytest.raises(UserError, match=f"Cannot read .*{name}"):
            read_picture(tmp_path / name)
