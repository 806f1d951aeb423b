import json
import uuid

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from rethink_pretrain.data import (
    check_datasets,
    check_num_classes,
    datasets_root,
    describe_dataset,
    register_coco,
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
