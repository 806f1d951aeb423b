import json

import pytest
from PIL import Image

from rethink_pretrain.data.datasets.coco_json import read_coco_json
from rethink_pretrain.errors import UserError


@pytest.fixture
def read(tmp_path):
    """A function that writes a small valid document, changed, and reads it back."""

    def run(change):
        document = {
            "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 10}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0}
            ],
            "categories": [{"id": 1, "name": "cat"}],
        }
        change(document, document["images"][0], document["annotations"][0])
        (tmp_path / "a.json").write_text(json.dumps(document))
        return read_coco_json(tmp_path / "a.json", tmp_path)

    return run


def test_a_clean_document_comes_back_as_it_is(read, tmp_path):
    document, mends = read(lambda d, i, a: None)
    assert not mends and document == json.loads((tmp_path / "a.json").read_text())


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        (lambda d, i, a: a.update(image_id=1.0), "image_id", 1),
        (lambda d, i, a: a.update(category_id="1"), "category_id", 1),
        (lambda d, i, a: a.pop("id"), "id", 1),
        (lambda d, i, a: a.update(id=0), "id", 1),
        (lambda d, i, a: a.pop("iscrowd"), "iscrowd", 0),
        (lambda d, i, a: a.update(iscrowd=True), "iscrowd", 1),
        (lambda d, i, a: a.update(ignore=1), "iscrowd", 1),
        (lambda d, i, a: a.pop("area"), "area", 12),
        # A triangle of 8 x 6 px: area 24, box [1, 2, 8, 6].
        (lambda d, i, a: a.update(area=None, segmentation=[[1, 2, 9, 2, 1, 8]]), "area", 24.0),
        (lambda d, i, a: a.update(bbox=[], segmentation=[[1, 2, 9, 2, 1, 8]]), "bbox", [1, 2, 8, 6]),
        (lambda d, i, a: a.update(segmentation=[1, 2, 9, 2, 1, 8]), "segmentation", [[1, 2, 9, 2, 1, 8]]),
        (lambda d, i, a: a.update(keypoints=[1, 1, 2, 0, 0, 0]), "num_keypoints", 1),
    ],
)
def test_small_differences_are_mended_and_counted(read, change, field, value):
    document, mends = read(change)
    assert document["annotations"][0][field] == value and type(document["annotations"][0][field]) is type(
        value
    )
    assert sum(mends.values()) == 1


@pytest.mark.parametrize("box", [[1, 2, 0, 4], [1, 2, 3, -4], [1, 2, float("nan"), 4], None])
def test_boxes_without_area_are_dropped_and_counted(read, box):
    document, mends = read(lambda d, i, a: a.update(bbox=box))
    assert not document["annotations"] and mends == {"annotations without a box of positive size dropped": 1}


def test_annotations_of_unlisted_images_are_dropped(read):
    document, mends = read(lambda d, i, a: a.update(image_id=2))
    assert not document["annotations"] and mends == {"annotations of unlisted images dropped": 1}


def test_missing_sizes_are_those_of_the_file(read, tmp_path):
    Image.new("RGB", (33, 22)).save(tmp_path / "a.png")
    document, _ = read(lambda d, i, a: i.pop("width"))
    assert (document["images"][0]["width"], document["images"][0]["height"]) == (33, 22)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d, i, a: i.update(id="a.png"), r"id 'a\.png' of an image is not a whole number"),
        (lambda d, i, a: a.update(image_id=1.5), r"image_id 1\.5 of an annotation is not a whole number"),
        (lambda d, i, a: a.update(category_id=2), r"category_id 2, which is none of: 1 cat"),
        (lambda d, i, a: d["images"].append(i), "1 image ids are used twice, the first is 1"),
        (lambda d, i, a: d["categories"].append({"id": 2, "name": "cat"}), "two categories are called 'cat'"),
        (lambda d, i, a: a.update(bbox=[1, 2]), r"bbox \[1, 2\] is not \[x, y, width, height\]"),
        (lambda d, i, a: a.update(bbox=["1", 2, 3, 4]), "not a list of numbers"),
        (lambda d, i, a: a.update(bbox=None, segmentation=[3, [4]]), "not a list of numbers"),
        (lambda d, i, a: i.pop("height"), r"no width and height for .*a\.png, and that file cannot be read"),
        (lambda d, i, a: i.pop("file_name"), "image 1 has no file_name"),
        (lambda d, i, a: d.pop("images"), "needs the lists images, annotations, categories"),
        (lambda d, i, a: d["images"].clear(), "lists no images or no categories"),
        (lambda d, i, a: d["annotations"].append(3), "annotations has to be a list of objects"),
    ],
)
def test_what_cannot_be_mended_is_one_line(read, change, words):
    with pytest.raises(UserError, match=words) as error:
        read(change)
    assert "\n" not in str(error.value) and "a.json" in str(error.value)


def test_files_that_are_not_json_are_named(tmp_path):
    with pytest.raises(UserError, match=r"Cannot read .*b\.json: No such file"):
        read_coco_json(tmp_path / "b.json", tmp_path)
    (tmp_path / "b.json").write_bytes(b"\x89PNG\xff")
    with pytest.raises(UserError, match=r"b\.json is not JSON"):
        read_coco_json(tmp_path / "b.json", tmp_path)
