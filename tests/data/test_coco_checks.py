import math
from pathlib import Path

import pytest

from rethink_pretrain.data.datasets.coco_checks import check_document, problems
from rethink_pretrain.errors import UserError


def small_document():
    """One image with one object that has everything."""
    ids = {"id": 1, "image_id": 1, "category_id": 3}
    shapes = {"bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 4, 2, 4, 6]], "keypoints": [3, 4, 2, 0, 0, 0]}
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 10}],
        "annotations": [{**ids, **shapes, "area": 12, "iscrowd": 0, "num_keypoints": 1}],
        "categories": [{"id": 3, "name": "cat", "keypoints": ["nose", "tail"]}],
    }


def find(change, folder, **options):
    """The problems of a small document after `change`(document, image, annotation, category)."""
    document = small_document()
    change(document, document["images"][0], document["annotations"][0], document["categories"][0])
    return list(problems(document, folder, **options))


def test_a_sound_document_has_none(tmp_path):
    assert find(lambda d, i, a, c: None, tmp_path) == []
    check_document(small_document(), Path("a.json"), tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d, i, a, c: i.update(id="1"), "image '1': the id is not a whole number"),
        (lambda d, i, a, c: i.update(id=-1), "image -1: the id is negative"),
        (lambda d, i, a, c: i.update(id=True), "image True: the id is not"),
        (lambda d, i, a, c: d["images"].append({**i, "id": 2**63}), f"image {2**63}: the id is not"),
        (lambda d, i, a, c: d["images"].append({**i, "id": [1]}), r"image [1]: the id is not"),
        (lambda d, i, a, c: i.pop("width"), "image 1: None x 10 is no width x height in px"),
        (lambda d, i, a, c: i.update(width=20.0), "image 1: 20.0 x 10 is no width x height"),
        (lambda d, i, a, c: i.update(height=0), "image 1: 20 x 0 is no width x height"),
        (lambda d, i, a, c: i.update(height=-5), "image 1: 20 x -5 is no width x height"),
        (lambda d, i, a, c: i.update(width=90_000, height=90_000), "image 1: 90000 x 90000 is no"),
        (lambda d, i, a, c: i.update(file_name="../a.png"), "image 1: the file name '../a.png' leads out"),
        (lambda d, i, a, c: i.pop("file_name"), "image 1: the file name None is not a text"),
        (lambda d, i, a, c: d["images"].append(dict(i)), "image id 1 is used 2 times"),
        (lambda d, i, a, c: c.update(name=7), "category 3: the name 7 is not a text"),
        (lambda d, i, a, c: c.update(name="\ud800"), r"category 3: the name '\ud800' is not a text"),
        (lambda d, i, a, c: c.update(keypoints=[1]), "category 3: its keypoints are not a list of names"),
        (lambda d, i, a, c: d["categories"].append(dict(c)), "category id 3 is used 2 times"),
        (lambda d, i, a, c: d["annotations"].append(dict(a)), "annotation id 1 is used 2 times"),
        (lambda d, i, a, c: a.pop("id"), "annotation None of image 1: the id None is not a whole number"),
        (
            lambda d, i, a, c: a.update(id=-4),
            "annotation -4 of image 1: COCO's evaluation takes a negative id",
        ),
        (lambda d, i, a, c: a.update(image_id=[]), "annotation 1 of image []: the image_id [] is not"),
        (lambda d, i, a, c: a.update(category_id=2), "category_id 2 is not among the categories"),
        (lambda d, i, a, c: a.update(iscrowd=2), "iscrowd 2 is neither 0 nor 1"),
        (lambda d, i, a, c: a.update(iscrowd=None), "iscrowd None is neither"),
        (lambda d, i, a, c: a.update(ignore=1), '"ignore" is not supported'),
        (lambda d, i, a, c: a.update(area="12"), "the area '12' is not a number"),
        (lambda d, i, a, c: a.update(area=math.nan), "the area nan is not"),
        (lambda d, i, a, c: a.update(area=10**400), "is not a number of px^2"),
        (lambda d, i, a, c: a.update(num_keypoints="1"), "num_keypoints '1' is not a whole number"),
        (lambda d, i, a, c: a.pop("bbox"), "annotation 1 of image 1: the box is not four numbers"),
        (lambda d, i, a, c: a.update(segmentation=[[1, 2, 2e8, 2, 4, 6]]), "a polygon is far larger than"),
        (lambda d, i, a, c: a.update(keypoints=[1, 2]), "the keypoints are not triples"),
        (lambda d, i, a, c: a.update(image_id=9, keypoints=[1, 2]), "of image 9: the keypoints are not"),
    ],
)
def test_each_problem_is_found_once_and_says_where(change, words, tmp_path):
    found = find(change, tmp_path)
    assert len([problem for problem in found if words in problem]) == 1 and len(found) <= 2


@pytest.mark.parametrize(
    "change",
    [
        lambda d, i, a, c: a.update(image_id=9, bbox=None, segmentation=7),  # of an unlisted image
        lambda d, i, a, c: a.update(bbox=[30, 2, 3, 0]),  # outside, and without area: a mere oddity
        lambda d, i, a, c: a.update(id=0),
        lambda d, i, a, c: a.update(iscrowd=True, ignore=0),
        lambda d, i, a, c: (a.pop("area"), a.pop("iscrowd"), a.pop("num_keypoints")),
        lambda d, i, a, c: a.update(segmentation=None, keypoints=None, num_keypoints=None),
        lambda d, i, a, c: d["annotations"].clear(),
        lambda d, i, a, c: d["images"].append({**i, "id": 2}),  # the same file twice
        lambda d, i, a, c: d["categories"].append({"id": -2, "name": "cat"}),
    ],
)
def test_what_the_host_takes_without_harm_is_accepted(change, tmp_path):
    assert find(change, tmp_path) == []


def test_twin_annotation_ids_are_accepted_in_minival(tmp_path):
    def twin(document, image, annotation, category):
        document["annotations"].append(dict(annotation))

    assert find(twin, tmp_path, unique_annotations=False) == []
    document = small_document()
    twin(document, None, document["annotations"][0], None)
    check_document(document, Path("instances_minival2014.json"), tmp_path)
    with pytest.raises(UserError, match="annotation id 1 is used 2 times"):
        check_document(document, Path("instances_val2014.json"), tmp_path)


def test_the_error_is_one_line_with_the_first_the_number_and_the_remedy(tmp_path):
    document = small_document()
    document["images"][0]["file_name"] = "/etc/passwd"
    document["annotations"][0].update(bbox=[1, 2], keypoints=[math.nan, 1, 2])
    with pytest.raises(UserError) as error:
        check_document(document, Path("my data.json"), "images")
    assert str(error.value) == (
        "my data.json: image 1: the file name '/etc/passwd' is absolute: names go from the folder of the "
        "images (and 2 more problems). Mend it: python tools/validate_dataset.py --json 'my data.json' "
        "--images images --fix repaired.json"
    )
