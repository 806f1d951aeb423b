import json
import os

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
        (lambda d, i, a: a.update(id=-7), "id", 1),
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


@pytest.mark.parametrize(
    ("orientation", "size"), [(1, (33, 22)), (3, (33, 22)), (6, (22, 33)), (8, (22, 33))]
)
def test_missing_sizes_are_those_of_the_file_as_exif_turns_it(read, tmp_path, orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (33, 22)).save(tmp_path / "a.png", exif=exif)
    document, _ = read(lambda d, i, a: i.pop("width"))
    assert (document["images"][0]["width"], document["images"][0]["height"]) == size


def test_sizes_in_other_words_are_made_whole(read):
    document, mends = read(lambda d, i, a: i.update(width=20.0))
    assert type(document["images"][0]["width"]) is int and mends == {"image sizes made whole numbers": 1}


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
        (lambda d, i, a: i.update(id={"a": [1]}), "is not a whole number"),
        (lambda d, i, a: i.update(id="9" * 5000), "is not a whole number"),
        (lambda d, i, a: i.update(id="9" * 20), r"the id is not a whole number"),
        (lambda d, i, a: i.update(file_name="../a.png"), r"a\.json: image 1: the file name .* leads out"),
        (lambda d, i, a: i.update(file_name="/etc/a.png", width=0), "the file name .* is absolute"),
        (
            lambda d, i, a: a.update(segmentation=[[1, 2, 2e8, 2, 1, 8]]),
            "of image 1: a polygon is far larger",
        ),
        (lambda d, i, a: a.update(area=None, segmentation=[3, [4]]), "a polygon is not a list"),
        (lambda d, i, a: a.update(segmentation=[[1, 2, float("nan"), 2, 1, 8]]), "a polygon holds NaN"),
        (lambda d, i, a: a.update(segmentation=[[1, 2, 3, 4]]), "the first polygon has fewer than 3 points"),
        (lambda d, i, a: a.update(segmentation={"size": [10, 20], "counts": "1"}), "counts of the RLE"),
        (lambda d, i, a: a.update(keypoints="abc"), "the keypoints are not triples"),
        (lambda d, i, a: a.update(bbox=[1, 2, 10**400, 4]), "the box has a number beyond"),
        (lambda d, i, a: a.update(area="12"), "the area '12' is not a number"),
        (lambda d, i, a: i.pop("height"), r"no width and height for .*a\.png', and that file cannot be read"),
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
    with pytest.raises(UserError, match=r"Cannot read .*: Is a directory"):
        read_coco_json(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\xff", r"b\.json is not JSON"),
        (b"", r"b\.json is not JSON"),
        (b"\xef\xbb\xbf{}", r"b\.json is not JSON: .*BOM"),  # the host's evaluator cannot read that
        ("{}".encode("utf-16"), "is not JSON"),
        (b"9" * 9000, "is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[" * 900 + b"]" * 900, "nested too deeply|not in COCO's format"),
        (b"[NaN, 1e999]", "not in COCO's format"),
        (b'{"images": {}, "annotations": [], "categories": []}', "needs the lists"),
        (b'{"images": [], "images": 7}', "needs the lists"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_files_that_are_not_coco_are_one_line(tmp_path, content, words):
    (tmp_path / "b.json").write_bytes(content)
    with pytest.raises(UserError, match=words) as error:
        read_coco_json(tmp_path / "b.json", tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_size_is_not_asked_of_a_pipe(read, tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UserError, match="that file cannot be read"):
        read(lambda d, i, a: i.pop("width"))


def test_a_message_does_not_list_a_thousand_categories(read):
    with pytest.raises(UserError, match=r"none of: 1 cat, 2 c2, .* 10 c10, \.\.\.\.$") as error:
        read(
            lambda d, i, a: (
                d["categories"].extend({"id": k, "name": f"c{k}"} for k in range(2, 1000)),
                a.update(category_id=5000),
            )
        )
    assert len(str(error.value)) < 400
