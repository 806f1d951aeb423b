"""One made-up problem of each kind is found as that kind, counted exactly, and repaired."""

import copy
import json
from collections import Counter
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from hypothesis import given, settings
from hypothesis import strategies as st
from made_defects import HEIGHT, IN_FILES, IN_JSON, WIDTH, make_document, make_everything

from rethink_pretrain.data import geometry, register_coco
from rethink_pretrain.data.datasets.coco_checks import problems
from rethink_pretrain.data.datasets.coco_json import read_coco_json
from rethink_pretrain.data.inspection import (
    ERRORS,
    KINDS,
    Report,
    check_document,
    check_images,
    repair,
    summary,
)
from rethink_pretrain.files import write_json

NOWHERE = Path("/nowhere")  # file names are judged without the files


def inspect(document: dict, folder: Path = NOWHERE) -> Report:
    report = Report()
    check_document(document, folder, report)
    return report


def whole(document: dict) -> str:
    """All of a document, NaN included, to compare with."""
    return json.dumps(document)


class TestKinds:
    def test_every_kind_has_a_made_up_case(self):
        assert {*IN_JSON, *IN_FILES, "nothing-listed"} == set(KINDS)

    def test_grave_geometry_is_an_error_and_other_is_not(self):
        assert set(geometry.KINDS) <= set(KINDS)
        assert ERRORS & set(geometry.KINDS) == geometry.GRAVE

    def test_a_sound_document_has_none(self):
        assert inspect(make_document()).counts == {}

    @pytest.mark.parametrize("kind", IN_JSON)
    def test_counted_exactly_and_nothing_else(self, kind):
        document = make_document()
        number = IN_JSON[kind](document)
        report = inspect(document)
        assert report.counts == {kind: number}
        assert (report.num_errors, report.num_warnings) == ((number, 0) if kind in ERRORS else (0, number))

    @pytest.mark.parametrize("key", ["images", "categories"])
    def test_nothing_listed(self, key):
        document = make_document()
        document[key] = []
        assert inspect(document).counts["nothing-listed"] == 1

    def test_at_most_five_examples_say_where(self):
        document = make_document()
        for annotation in document["annotations"]:
            annotation["bbox"] = [1, 2, 0, 4]
        report = inspect(document)
        assert report.counts == {"box-empty": 10}
        examples = report.as_dict()["problems"]["box-empty"]["examples"]
        assert [example["annotation_id"] for example in examples] == [1, 2, 3, 4, 5]
        assert examples[0] == {"annotation_id": 1, "image_id": 1, "bbox": "[1, 2, 0, 4]"}

    def test_examples_from_strangers_stay_on_their_line(self):
        document = make_document()
        document["images"][0]["file_name"] = "../\x1b[2Jevil\n" + "x" * 10_000
        nest = []
        for _ in range(200):
            nest = [nest]
        document["annotations"][0]["bbox"] = nest
        text = summary(document, inspect(document), Path("a.json"), NOWHERE)
        assert "\x1b" not in text and max(map(len, text.splitlines())) <= 120 and len(text) < 2500

    def test_a_table_of_80_columns(self):
        document = make_document()
        for put in (IN_JSON["box-enormous"], IN_JSON["file-name-unsafe"], IN_JSON["category-id-gap"]):
            put(document)
        lines = inspect(document).as_text().splitlines()
        assert max(map(len, lines)) <= 80
        assert [line.split()[:3] for line in lines if line[0] != " "] == [
            ["error", "4", "file-name-unsafe:"],
            ["error", "1", "box-enormous:"],
            ["warning", "3", "category-id-gap:"],
        ]


class TestRepair:
    @pytest.mark.parametrize("kind", IN_JSON)
    def test_no_errors_are_left_and_a_second_time_changes_nothing(self, kind):
        document = make_document()
        IN_JSON[kind](document)
        before = whole(document)
        repaired = repair(document, NOWHERE, {})
        assert whole(document) == before
        assert inspect(repaired.document).num_errors == 0
        again = repair(repaired.document, NOWHERE, {})
        assert whole(again.document) == whole(repaired.document) and not again.mended and not again.dropped

    def test_a_sound_document_is_left_alone(self):
        document = make_document()
        repaired = repair(document, NOWHERE, {})
        assert list(repaired.document) == list(document) and repaired.document == document
        assert not repaired.mended and not repaired.dropped

    @pytest.mark.parametrize(
        ("kind", "mended", "dropped"),
        [
            ("box-beyond-image", {"box-beyond-image": 3}, {}),
            ("id-type", {"id-type": 2}, {}),
            ("annotation-id-twice", {"annotation-id-twice": 2}, {}),
            ("box-empty", {"box-empty": 2}, {}),  # from their polygons
            ("polygon-not-finite", {}, {("polygons", "polygon-not-finite"): 1}),
            ("polygon-enormous", {}, {("annotations", "polygon-enormous"): 1}),
            ("image-unlisted", {}, {("annotations", "image-unlisted"): 1}),
            (
                "image-id-negative",
                {},
                {("images", "image-id-negative"): 1, ("annotations", "image-dropped"): 1},
            ),
            ("image-id-twice", {}, {("images", "image-id-twice"): 1}),
            (
                "file-name-unsafe",
                {},
                {("images", "file-name-unsafe"): 4, ("annotations", "image-dropped"): 8},
            ),
            ("keypoints-form", {"keypoints-form": 3}, {}),
        ],
    )
    def test_what_was_done_is_counted(self, kind, mended, dropped):
        document = make_document()
        IN_JSON[kind](document)
        repaired = repair(document, NOWHERE, {})
        assert (repaired.mended, repaired.dropped) == (mended, dropped)

    def test_boxes_are_clipped(self):
        document = make_document()
        IN_JSON["box-beyond-image"](document)
        boxes = [a["bbox"] for a in repair(document, NOWHERE, {}).document["annotations"][:3]]
        assert boxes == [[0, 3, 4, 5], [35, 3, WIDTH - 35, 5], [2, 28, 8, HEIGHT - 28]]

    def test_a_lost_mask_costs_the_object_only_where_the_others_have_theirs(self):
        document = make_document()
        boxes_alone = copy.deepcopy(document)
        for annotation in boxes_alone["annotations"][1:]:
            del annotation["segmentation"]
        for case, left in ((document, 9), (boxes_alone, 10)):
            case["annotations"][0]["segmentation"] = [[1, 1, 9, 9]]
            repaired = repair(case, NOWHERE, {}).document
            assert len(repaired["annotations"]) == left
            assert "segmentation" not in repaired["annotations"][0] or left == 9

    def test_only_what_was_kept_counts_as_mended(self):
        document = make_document()
        document["annotations"][0].update(image_id="1", segmentation=[], bbox=[99, 99, 1, 1])
        repaired = repair(document, NOWHERE, {})
        assert not repaired.mended and repaired.dropped == {("annotations", "box-outside"): 1}

    def test_a_box_set_without_area_stays_consistent(self):
        document = make_document()
        for annotation in document["annotations"]:
            del annotation["segmentation"]
        document["annotations"][0].update(bbox=[-30, 0, 34, 10], area=340)
        repaired = repair(document, NOWHERE, {}).document
        assert repaired["annotations"][0]["area"] == 4 * 10 and not inspect(repaired).counts

    def test_free_names_for_categories(self):
        document = make_document()
        for category, name in zip(document["categories"], ("nut", "nut")):
            category["name"] = name
        document["categories"].append({"id": 3, "name": "nut_2"})
        names = [c["name"] for c in repair(document, NOWHERE, {}).document["categories"]]
        assert names == ["nut", "nut_2_", "nut_2"]

    def test_nothing_left_is_told(self):
        document = make_document()
        for image in document["images"]:
            image["file_name"] = "/etc/passwd"
        assert repair(document, NOWHERE, {}).nothing_left == "images"


def test_every_defect_at_once_is_repaired_and_loads(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    document = make_everything(images)
    report = Report()
    check_document(document, images, report)
    files = check_images(document, images, report, num_workers=2)
    assert set(report.counts) == set(KINDS) - {"nothing-listed"}

    repaired = repair(document, images, files)
    after = inspect(repaired.document, images)
    files = check_images(repaired.document, images, after)
    assert after.num_errors == 0
    again = repair(repaired.document, images, files)
    assert again.document == repaired.document and not again.mended and not again.dropped
    assert repaired.document["info"] == {"mine": "kept"}
    ids = [image["id"] for image in repaired.document["images"]]
    assert ids == sorted(ids) and all(image["mine"] == 1 for image in repaired.document["images"])
    assert {a["mine"] for a in repaired.document["annotations"]} == {"kept"}

    path = tmp_path / "repaired.json"
    write_json(path, repaired.document, indent=None)
    try:
        register_coco("inspected", path, images)
        records = DatasetCatalog.get("inspected")
        num_classes = len(MetadataCatalog.get("inspected").thing_classes)
    finally:
        DatasetCatalog.pop("inspected", None)
        MetadataCatalog.pop("inspected", None)
    assert len(records) == len(ids) and num_classes == len(repaired.document["categories"])
    _, mends = read_coco_json(path, images)
    assert not set(mends) & {"annotations of unlisted images dropped", "annotation ids numbered anew"}


values = st.one_of(
    *(st.none(), st.booleans(), st.integers(-5, 50), st.integers(), st.text(max_size=5)),
    *(st.floats(), st.lists(st.floats(-50, 50), max_size=9), st.dictionaries(st.text(max_size=3), st.none())),
)
keys = st.sampled_from(["images", "annotations", "categories"])
mutations = st.lists(
    st.tuples(
        st.sampled_from(["images", "annotations", "categories"]), st.integers(0), st.integers(0), values
    ),
    min_size=1,
    max_size=12,
)


def mutated(document: dict, changes: list) -> dict:
    """`document` with fields of its records, or whole records, replaced."""
    for key, place, field, value in changes:
        records = document[key]
        place %= len(records)
        if field % 12 == 11 or not isinstance(records[place], dict):
            records[place] = value
        else:
            records[place][sorted(records[place])[field % len(records[place])]] = value
    return document


@settings(max_examples=600, deadline=None, derandomize=True, database=None)
@given(mutations)
def test_whatever_is_wrong_the_repaired_document_has_no_errors(changes):
    document = mutated(make_document(), changes)
    report = inspect(document)
    if not report.num_errors:
        assert not list(problems(document, NOWHERE))  # what training asks when it loads the file
    repaired = repair(document, NOWHERE, {})
    if repaired.nothing_left:
        return
    assert not list(problems(repaired.document, NOWHERE))
    assert inspect(repaired.document).num_errors == 0
    assert whole(repair(repaired.document, NOWHERE, {}).document) == whole(repaired.document)
    if not report.num_errors:
        kinds = Counter(kind for _, kind in repaired.dropped)
        assert set(kinds) <= {"image-unlisted", "box-empty", "box-outside"}
