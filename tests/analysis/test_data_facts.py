"""Counts of small documents, against counts by hand."""

import pytest

from rethink_pretrain.analysis.data_facts import CategoryFacts, count_facts, read_facts
from rethink_pretrain.errors import UserError


def document() -> dict:
    """Images 1 to 3: two cats and a crowd in 1, a cat and a dog in 2, nothing in 3; 9 is not listed."""
    shown = [(1, 1), (1, 1), (2, 1), (2, 2), (9, 2)]
    annotations = [{"image_id": i, "category_id": c, "segmentation": [[0] * 6]} for i, c in shown]
    annotations.append({"image_id": 1, "category_id": 2, "iscrowd": 1})
    return {
        "images": [{"id": i, "width": 100 * i, "height": 50} for i in (1, 2, 3)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "owl"}],
    }


def test_counts():
    facts = count_facts(document(), "set.json")
    assert (facts.images, facts.images_with_objects, facts.objects, facts.crowds) == (3, 2, 4, 1)
    assert facts.objects_per_image == 2
    assert facts.categories == [
        CategoryFacts("cat", 2, 3),
        CategoryFacts("dog", 1, 1),
        CategoryFacts("owl", 0, 0),
    ]
    assert facts.used_categories == 2
    assert [category.name for category in facts.rare_categories(below=2)] == ["dog"]
    assert facts.masks


def test_ids_as_text_are_those_of_numbers():
    text = document()
    for annotation in text["annotations"]:
        annotation["image_id"] = str(annotation["image_id"])
    for image in text["images"]:
        image["id"] = float(image["id"])
    assert count_facts(text, "x") == count_facts(document(), "x")


def test_one_object_without_a_mask():
    boxes = document()
    del boxes["annotations"][0]["segmentation"]
    assert not count_facts(boxes, "x").masks


def test_resized_size_is_the_mean_of_the_images_with_objects():
    """100 x 50 becomes 200 x 100; 200 x 50 would become 400 x 100 and is held at 300 x 75."""
    facts = count_facts(document(), "x")
    assert facts.resized(100, 300) == (88, 250)
    assert facts._replace(sizes=[]).resized(100, 300) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "needs the lists images, annotations, categories"),
        ('{"images": [], "annotations": [], "categories": []}', "has no objects"),
        ('{"images": [1], "annotations": [], "categories": []}', "its lists have to hold objects"),
        ('{"images": [{"id": null}], "annotations": [], "categories": []}', "image with id None"),
        ("{", "is not JSON"),
        (
            '{"images": [{"id": 1}], "annotations": [{"image_id": 1, "category_id": 5}], "categories": []}',
            "category_id 5, which no category has",
        ),
    ],
)
def test_errors_are_one_line(tmp_path, content, message):
    path = tmp_path / "set.json"
    path.write_text(content)
    with pytest.raises(UserError, match="set") as error:
        read_facts(path)
    assert message in str(error.value) and "\n" not in str(error.value)
