import json
import uuid

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances, register_coco_panoptic_separated

from rethink_pretrain.data import (
    check_datasets,
    check_num_classes,
    datasets_root,
    describe_dataset,
    register_coco,
    register_named,
    register_toy,
)
from rethink_pretrain.errors import UserError


@pytest.fixture
def name():
    name = f"test_{uuid.uuid4().hex}"
    yield name
    DatasetCatalog.pop(name, None)
    MetadataCatalog.pop(name, None)


def write_coco(folder, category_id=3):
    (folder / "images").mkdir()
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 10, "width": 20}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": category_id,
                "bbox": [1, 2, 3, 4],
                "area": 12,
                "iscrowd": 0,
            }
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return folder / "a.json", folder / "images"


def test_register_twice_is_once_and_other_files_are_refused(name, tmp_path):
    json_file, images = write_coco(tmp_path)
    register_coco(name, json_file, images)
    register_coco(name, json_file, images)
    (record,) = DatasetCatalog.get(name)
    assert record["annotations"][0]["category_id"] == 0 and record["file_name"] == str(images / "a.jpg")
    assert MetadataCatalog.get(name).thing_classes == ["cat", "dog"]
    with pytest.raises(UserError, match="already registered with"):
        register_coco(name, tmp_path / "b.json", images)


def test_an_annotation_of_an_unknown_category_lists_the_known_ones(name, tmp_path):
    json_file, images = write_coco(tmp_path, category_id=5)
    register_coco(name, json_file, images)
    with pytest.raises(UserError, match=r"a\.json: .*category_id 5, .* none of: 3 cat, 7 dog\."):
        DatasetCatalog.get(name)


def test_missing_files_are_named_with_a_way_out(name, tmp_path):
    json_file, images = write_coco(tmp_path)
    register_coco(name, json_file, images)
    check_datasets([name])
    json_file.unlink()
    with pytest.raises(UserError, match=rf"Missing for {name}: .*a\.json\. .*DETECTRON2_DATASETS.*toy"):
        check_datasets([name])


def test_number_of_categories_is_compared_once_known(name, tmp_path):
    json_file, images = write_coco(tmp_path)
    register_coco(name, json_file, images)
    check_num_classes([name], 5)  # not loaded yet: nothing to compare with
    DatasetCatalog.get(name)
    check_num_classes([name], 2)
    with pytest.raises(UserError, match=r"NUM_CLASSES is 5.* has 2 categories \(cat, dog\)\. Set .* to 2\."):
        check_num_classes([name], 5)


def change_the_document(json_file, change):
    document = json.loads(json_file.read_text())
    change(document, document["images"][0], document["annotations"][0])
    json_file.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d, i, a: i.update(file_name="../a.jpg"), r"image 1: the file name '\.\./a\.jpg' leads out"),
        (lambda d, i, a: i.update(file_name="s3://b/a.jpg"), "is an address"),
        (
            lambda d, i, a: a.update(segmentation=[[1, 2, 2e8, 2, 1, 8]]),
            "annotation 1 of image 1: a polygon is",
        ),
        (lambda d, i, a: a.update(segmentation=[[1, 2, 3, 4]]), "the first polygon has fewer than 3 points"),
        (lambda d, i, a: a.update(segmentation={"size": [10, 20], "counts": [7]}), "counts of the RLE mask"),
        (lambda d, i, a: a.update(keypoints=[1, 2]), "keypoints are not triples"),
        (lambda d, i, a: i.update(width=10**6), "1000000 x 10 is no width x height"),
        (lambda d, i, a: a.update(iscrowd="no"), "iscrowd 'no' is neither 0 nor 1"),
        (lambda d, i, a: d.update(images=7), "needs the lists images"),
    ],
)
def test_what_could_hurt_a_run_is_one_line_with_a_remedy(name, tmp_path, change, words):
    json_file, images = write_coco(tmp_path)
    change_the_document(json_file, change)
    register_coco(name, json_file, images)
    with pytest.raises(UserError, match=words) as error:
        DatasetCatalog.get(name)
    text = str(error.value)
    assert "\n" not in text and text.startswith(f"{json_file}")
    if "lists" not in words:
        assert f"python tools/validate_dataset.py --json {json_file} --images {images} --fix" in text


def test_a_file_without_annotations_is_a_test_set(name, tmp_path):
    json_file, images = write_coco(tmp_path)
    change_the_document(json_file, lambda d, i, a: d.pop("annotations"))
    register_coco(name, json_file, images)
    assert [record["annotations"] for record in DatasetCatalog.get(name)] == [[]]


@pytest.fixture
def host_set(name, tmp_path):
    """A set that the host's own functions registered, as they do COCO's, and its json."""
    json_file, images = write_coco(tmp_path)
    register_coco_instances(name, {"thing_classes": ["cat", "dog"]}, str(json_file), str(images))
    return name, json_file


@pytest.mark.parametrize("asked", ["{}", "{}@1"])
def test_sets_of_the_host_are_checked_too(host_set, asked):
    name, json_file = host_set
    before, host_records = dict(MetadataCatalog.get(name).as_dict()), DatasetCatalog.get(name)
    asked = asked.format(name)
    register_named([asked])
    register_named([asked])
    try:
        assert DatasetCatalog.get(asked) == host_records and describe_dataset(name) == {"name": name}
        ids = {"thing_dataset_id_to_contiguous_id": {3: 0, 7: 1}}
        assert MetadataCatalog.get(name).as_dict() == {**before, **ids}
        change_the_document(json_file, lambda d, i, a: a.update(bbox=[1, 2, float("nan"), 4]))
        with pytest.raises(UserError, match="annotations without a box of positive size dropped"):
            DatasetCatalog.get(asked)
        change_the_document(json_file, lambda d, i, a: a.update(bbox=[1, 2, 3, 4], segmentation=[[], [1]]))
        with pytest.raises(UserError, match="a polygon is not a list of x, y pairs"):
            DatasetCatalog.get(asked)
    finally:
        if "@" in asked:
            DatasetCatalog.pop(asked)
            MetadataCatalog.pop(asked)


def test_other_categories_than_those_of_the_name_are_one_line(host_set):
    name, json_file = host_set
    register_named([name])
    change_the_document(json_file, lambda d, i, a: d["categories"].pop())
    with pytest.raises(UserError, match="are not those that it is known with"):
        DatasetCatalog.get(name)


def test_loaders_of_others_are_left_alone(name):
    DatasetCatalog.register(name, lambda: [{"mine": 1}])
    MetadataCatalog.get(name).set(json_file="a.json", image_root="images", evaluator_type="coco")
    register_named([name, "voc_2007_val", "lvis_v1_val", "coco_2017_val_panoptic"])
    assert DatasetCatalog.get(name) == [{"mine": 1}]
    for other in ("lvis_v1_val", "coco_2017_val_panoptic"):
        assert DatasetCatalog[other].__module__.startswith("detectron2.")


def test_panoptic_sets_of_the_host_have_their_objects_checked(name, datasets):
    toy = datasets / "toy"
    files = (str(toy / "val"), "", "", str(toy / "sem_seg_val"), str(toy / "val.json"))
    register_coco_panoptic_separated(name, {}, *files)
    names = [f"{name}_separated", f"{name}_stuffonly"]
    try:
        host_records = DatasetCatalog.get(names[0])
        register_named(names)
        assert DatasetCatalog[names[0]].__module__.startswith("rethink_pretrain.")
        assert DatasetCatalog.get(names[0]) == host_records and len(host_records) == 12
        assert "sem_seg_file_name" in host_records[0] and host_records[0]["annotations"]
    finally:
        for other in names:
            DatasetCatalog.pop(other)
            MetadataCatalog.pop(other)


def test_the_toy_set_lies_under_the_data_set_folder(datasets):
    assert datasets_root() == datasets
    register_toy()
    assert MetadataCatalog.get("toy_val").json_file == str(datasets / "toy" / "val.json")
    assert len(DatasetCatalog.get("toy_train")) == 24


def test_ids_that_only_our_reader_mends_point_to_it(name, tmp_path):
    json_file, images = write_coco(tmp_path)
    document = json.loads(json_file.read_text())
    document["images"][0]["id"] = document["annotations"][0]["image_id"] = "1"
    json_file.write_text(json.dumps(document))
    register_coco(name, json_file, images)
    with pytest.raises(UserError, match=r"needs mending: 1 image ids made whole numbers.*RETHINK\.DATA"):
        DatasetCatalog.get(name)


def test_a_set_is_described_by_its_ids(name, tmp_path):
    json_file, images = write_coco(tmp_path)
    register_coco(name, json_file, images)
    # sha256sum of the one character "1"
    assert describe_dataset(name) == {"name": name}
    DatasetCatalog.get(name)
    digest = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    assert describe_dataset(name) == {"name": name, "images": 1, "digest": digest, "instances": 1}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("keypoints_coco_2017_train", "cocodataset.org"),
        ("voc_2007_trainval", "VOC2007"),
        ("voc_2012_val", "datasets/README.md"),
    ],
)
def test_sets_of_the_host_that_are_missing_say_where_to_get_them(name, words):
    with pytest.raises(UserError, match=words):
        check_datasets([name])


def test_a_size_behind_a_known_name_suggests_the_subset():
    with pytest.raises(UserError, match=r"A subset is written coco_2017_train@10k\."):
        check_datasets(["coco_2017_train_10k"])
    with pytest.raises(UserError) as error:
        check_datasets(["bolts_train"])
    assert "A subset" not in str(error.value)
