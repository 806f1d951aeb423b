"""Records against the host's own loader, which reads the file again."""

import copy
import json
import random
import uuid

import pycocotools.mask as mask_util
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from rethink_pretrain.data.datasets.records import records_of
from rethink_pretrain.errors import UserError

SIZE = {"width": 20, "height": 10}
RUNS = {"size": [10, 20], "counts": [3, 5, 192]}


@pytest.fixture
def names():
    """Two names for data sets."""
    names = [f"test_{uuid.uuid4().hex}" for _ in range(2)]
    yield names
    for name in names:
        MetadataCatalog.pop(name, None)
        DatasetCatalog.pop(name, None)


def compressed(runs: dict) -> dict:
    rle = mask_util.frPyObjects(runs, 10, 20)
    return {**rle, "counts": rle["counts"].decode()}


def every_form() -> dict:
    """Ids in no order and with gaps, every form of segmentation, keypoints, images without objects."""
    segmentations = [
        [[1, 2, 9, 2, 1, 8]],
        [[1.5, 2, 9, 2, 1, 8], [1, 1, 3, 3], [4, 4, 8, 4, 8, 8]],  # one without an area is left out
        [[1, 2, 3, 4]],  # the whole object is left out
        RUNS,
        compressed(RUNS),
        [],
    ]
    annotations = [
        {"segmentation": s, "iscrowd": int(isinstance(s, dict)), "keypoints": [3, 4, 2, 5.5, 6, 1, 0, 0, 0]}
        for s in segmentations
    ]
    annotations += [{}, {"keypoints": []}, {"segmentation": None, "score": 1, "attributes": {"a": [1]}}]
    for i, annotation in enumerate(annotations):
        ids = {"id": 50 - i, "image_id": (9, 2, 30)[i % 3], "category_id": (7, 3, 90)[i % 3]}
        annotation.update(**ids, bbox=[1, 2, 3.5, 4], area=14)
    images = [{"id": i, "file_name": f"sub/{i}.jpg", **SIZE, "license": 4} for i in (30, 2, 9, 5)]
    categories = [{"id": i, "name": f"c{i}", "supercategory": "x"} for i in (90, 7, 3, 12)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def metadata_of(name: str) -> dict:
    return {key: value for key, value in MetadataCatalog.get(name).as_dict().items() if key != "name"}


def compare(document, names, folder):
    path = folder / "a.json"
    path.write_text(json.dumps(document))
    ours, host = names
    before = copy.deepcopy(document)
    records = records_of(document, folder / "images", ours)
    assert document == before
    assert records == load_coco_json(str(path), str(folder / "images"), host)
    assert metadata_of(ours) == metadata_of(host) and "thing_classes" in metadata_of(ours)


def test_every_form_equals_the_host(names, tmp_path):
    compare(every_form(), names, tmp_path)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_toy_set_equals_the_host(datasets, names, tmp_path, split):
    document = json.loads((datasets / "toy" / f"{split}.json").read_text())
    random.Random(0).shuffle(document["images"])
    random.Random(1).shuffle(document["annotations"])
    compare(document, names, tmp_path)


def test_annotations_of_unlisted_images_are_a_warning(names, tmp_path, caplog):
    document = every_form()
    document["images"].pop(0)
    with caplog.at_level("WARNING", logger="rethink_pretrain"):
        compare(document, names, tmp_path)
    assert "3 annotations of images not in the file" in caplog.text


def test_objects_left_out_are_counted(names, tmp_path, caplog):
    with caplog.at_level("WARNING", logger="rethink_pretrain"):
        records_of(every_form(), tmp_path, names[0])
    assert "1 objects without a valid polygon are left out" in caplog.text


def test_categories_other_than_the_known_ones_are_refused(names, tmp_path):
    records_of(every_form(), tmp_path, names[0])
    records_of(every_form(), tmp_path, names[0])
    document = every_form()
    document["categories"][0]["name"] = "other"
    with pytest.raises(UserError, match="are not those that it is known with"):
        records_of(document, tmp_path, names[0])
