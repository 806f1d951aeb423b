"""Generated COCO files: each is loaded into what compiled code survives, or refused with one line.

A crash of compiled code would end pytest itself, which is proof enough that there was none.
"""

import copy
import json
import math
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data import MetadataCatalog, detection_utils
from detectron2.data import transforms as T
from faster_coco_eval import COCO, COCOeval_faster
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rethink_pretrain.data.datasets.coco_json import read_coco_json, read_lists
from rethink_pretrain.data.datasets.records import records_of
from rethink_pretrain.data.datasets.register import load_coco
from rethink_pretrain.errors import UserError

DECODED_PX = 10**6  # of images whose masks are decoded here; a mask takes a byte per px
SIDE = 64  # px of the longer side of training images here

fuzzed = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def compress(runs: list[int]) -> str:
    return mask_util.frPyObjects({"size": [10, 20], "counts": runs}, 10, 20)["counts"].decode()


def valid_document() -> dict:
    """Two images, objects of every form."""
    size, runs = [10, 20], [5, 3, 192]
    shapes = [
        {"segmentation": [[1, 2, 9, 2, 1, 8.5], [3, 3, 5, 3, 5, 5]], "iscrowd": 0},
        {"segmentation": {"size": size, "counts": runs}, "iscrowd": 1},
        {"segmentation": {"size": size[:], "counts": compress(runs)}, "iscrowd": 0},
        {"keypoints": [3, 4, 2, 7.5, 5, 1, 0, 0, 0], "num_keypoints": 2},
        {"segmentation": [[2, 2, 9, 2, 9, 8]], "keypoints": [3, 4, 2, 7, 5, 1, 1, 1, 2], "num_keypoints": 3},
    ]
    annotations = [
        {"id": k, "image_id": 1 + (k > 3), "category_id": 3 + k % 2, "bbox": [1, 2, 8.5, 6]}
        for k in range(1, 6)
    ]
    for annotation, shape in zip(annotations, shapes, strict=True):
        annotation.update({"area": 30, "iscrowd": 0, **shape})
    images = [{"id": k, "file_name": f"{k}.jpg", "width": 20, "height": 10} for k in (1, 2)]
    categories = [{"id": 3, "name": "cat", "keypoints": ["a", "b", "c"]}, {"id": 4, "name": "dog"}]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def changed(change) -> dict:
    document = valid_document()
    change(document, document["images"], document["annotations"])
    return document


NASTY = [
    *(None, True, False, 0, -1, 1, 2, 3, 7, 10, 20, 0.5, 1.0, -0.0, 1e-9, 19.999999, 1e308),
    *(math.nan, math.inf, -math.inf, 2e8, -2e8, 2**31 - 1, 2**31, 2**32, 2**53, 2**63, -(2**63), 10**400),
    *("", "a", "1", "7.0", "nan", "\0", "a\nb", "\ud800", "P5"),
    *("../a", "/etc/passwd", "https://x.org/a.jpg", "a\\b"),
    *([], {}, [[]], [[[]]], [None], [[1, 2, 3, 4]], [[1, 2]], [1, 2, 3, 4], [0, 0, 0, 0]),
    *([1, 2, 9, 2, 1, 8.5], [[1, 2, 9, 2, 1, 8], []], [[1, 2, 9, 2, 1, 8], [4, 4]]),
    *([[0, 0, 300, 0, 300, 300]], [[0, 0, 20, 10] * 37]),
    *([1e-4, 1e-4, 1e-4, 1e-4], [-5, -5, 1e5, 1e5], [19.9999, 2, 50, 5]),
    *({"size": [10, 20], "counts": counts} for counts in ([200], [0, 200], [5, 3], "1")),
]

KEYS = [
    *("images", "annotations", "categories", "info", "id", "image_id", "category_id", "file_name", "name"),
    *("width", "height", "bbox", "area", "iscrowd", "ignore", "segmentation", "size", "counts"),
    *("keypoints", "num_keypoints", "skeleton", "x"),
]
nasty = st.sampled_from(NASTY)
numbers = st.one_of(st.integers(-30, 30), st.floats(-30, 30), st.integers(), st.floats(), nasty)
polygons = st.lists(st.lists(numbers, max_size=9), max_size=3)
masks = st.fixed_dictionaries({"size": st.just([10, 20]), "counts": st.one_of(st.lists(numbers), st.text())})
values = st.one_of(nasty, numbers, st.text(max_size=8), st.lists(numbers, max_size=6), polygons, masks)
any_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=15,
)
objects = st.dictionaries(st.sampled_from(KEYS), values, max_size=9)
whole_documents = st.fixed_dictionaries(
    {"images": st.lists(objects, max_size=2), "annotations": st.lists(objects, max_size=2)},
    optional={"categories": st.lists(objects, max_size=2)},
)


def containers(node) -> list:
    """All non-empty dicts and lists in `node`, itself first."""
    if not isinstance(node, (dict, list)) or not node:
        return []
    inner = node.values() if isinstance(node, dict) else node
    return [node, *(found for child in inner for found in containers(child))]


@st.composite
def mutated_documents(draw) -> dict:
    """A valid document in which one to three values are replaced, removed, doubled or added."""
    document = valid_document()
    for _ in range(draw(st.sampled_from([1, 1, 2, 3]))):
        node = draw(st.sampled_from(containers(document) or [document]))
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = draw(st.sampled_from(keys)) if keys else None
        value = copy.deepcopy(draw(values))  # which the next round may change
        action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "double", "add"]))
        if action == "add" and isinstance(node, dict):
            node[draw(st.sampled_from(KEYS))] = value
        elif action == "add":
            node.insert(draw(st.integers(0, len(node))), value)
        elif key is None:
            continue
        elif action == "remove":
            del node[key]
        elif action == "double" and isinstance(node, list):
            node.append(copy.deepcopy(node[key]))
        else:
            node[key] = value
    return document


def flat(points: list[tuple]) -> list:
    return [number for point in points for number in point]


# Where most is as it should be, and the rest nearly so.
coordinates = st.one_of(
    st.integers(-3, 25), st.floats(-3, 25), st.floats(-320, 320), st.sampled_from([299.9, -300, 1e-7])
)
runs = st.lists(st.integers(0, 200), max_size=8).map(lambda cuts: np.diff([0, *sorted(cuts), 200]).tolist())
characters = st.characters(min_codepoint=48, max_codepoint=111)
outlines = st.lists(st.tuples(coordinates, coordinates), min_size=2, max_size=7).map(flat)
segmentations = st.one_of(
    st.lists(outlines, min_size=1, max_size=3),
    runs.map(lambda counts: {"size": [10, 20], "counts": counts}),
    runs.map(lambda counts: {"size": [10, 20], "counts": compress(counts)}),
    st.tuples(runs.map(compress), characters).map(
        lambda pair: {"size": [10, 20], "counts": pair[1] + pair[0][1:]}
    ),
)
shapes = st.fixed_dictionaries(
    {"bbox": st.lists(coordinates, min_size=4, max_size=4), "iscrowd": st.sampled_from([0, 0, 1])},
    optional={
        "segmentation": segmentations,
        "keypoints": st.lists(st.tuples(coordinates, coordinates, st.integers(0, 2)), max_size=3).map(flat),
        "area": st.floats(0, 200),
    },
)


@st.composite
def plausible_documents(draw) -> dict:
    """Up to three objects of any shape in one image of 20 x 10 px."""
    document = valid_document()
    for annotation in document["annotations"]:
        annotation["image_id"] = 1
    kept = document["annotations"][: draw(st.integers(1, 3))]
    ids = ("id", "image_id", "category_id")
    document["annotations"] = [{**{key: a[key] for key in ids}, **draw(shapes)} for a in kept]
    return document


@st.composite
def mutated_files(draw) -> bytes:
    """The bytes of a valid file, some of them changed, cut out or put in."""
    data = bytearray(json.dumps(valid_document()).encode())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.sampled_from([0, 1, 1, 2, 5, 40, 10**4]))
        tokens = [
            b"",
            b"9",
            b"-",
            b"e999",
            b"NaN",
            b"null",
            b'"',
            b"[",
            b"]",
            b"{",
            b"}",
            b",",
            b"\xff",
            b"\\ud800",
        ]
        data[start : start + length] = draw(st.one_of(st.sampled_from(tokens), st.binary(max_size=3)))
    return bytes(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def loads_or_refuses(content: bytes, folder: Path) -> None:
    """By the strict way and by the one that mends; what is loaded survives, what is refused is one line."""
    path = folder / "a.json"
    path.write_bytes(content)
    for load in (load_strictly, load_mended):
        name = f"fuzz_{uuid.uuid4().hex}"
        try:
            records, document = load(name, path)
        except UserError as error:
            text = str(error)
            assert text.isprintable() and len(text) < 500 and str(path) in text
        else:
            survive_training(records)
            survive_evaluation(document)
        finally:
            MetadataCatalog.pop(name, None)


def load_strictly(name: str, path: Path) -> tuple[list[dict], dict]:
    """As registered sets are: what the host then evaluates is the file itself."""
    return load_coco(name, str(path), str(path.parent)), read_lists(path, optional=("annotations",))


def load_mended(name: str, path: Path) -> tuple[list[dict], dict]:
    """As RETHINK.DATA does."""
    document, _ = read_coco_json(path, path.parent)
    return records_of(document, path.parent, name), document


def survive_training(records: list[dict]) -> None:
    """Through the host's transforms into its instances, and the masks of boxes as the mask head has them."""
    for record in records:
        height, width = record["height"], record["width"]
        decode_all(record["annotations"], height, width)
        objects = [copy.deepcopy(a) for a in record["annotations"] if not a.get("iscrowd", 0)]
        if height * width > DECODED_PX or not objects:
            continue
        scale = SIDE / max(height, width)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        transforms = T.TransformList([T.HFlipTransform(width), T.ResizeTransform(height, width, *size)])
        make_alike(objects, "segmentation", type)
        make_alike(objects, "keypoints", len)
        for annotation in objects:
            flip = np.arange(len(annotation.get("keypoints", ())) // 3)
            detection_utils.transform_instance_annotations(
                annotation, transforms, size, keypoint_hflip_indices=flip
            )
        mask_format = "polygon" if isinstance(objects[0].get("segmentation"), list) else "bitmask"
        instances = detection_utils.annotations_to_instances(objects, size, mask_format)
        assert np.isfinite(instances.gt_boxes.tensor.numpy()).all()
        instances = detection_utils.filter_empty_instances(instances)
        if instances.has("gt_masks") and len(instances):
            instances.gt_masks.crop_and_resize(instances.gt_boxes.tensor, 28)


def make_alike(objects: list[dict], key: str, kind: Callable) -> None:
    """Drop `key` unless all have it in one `kind`, which the host needs."""
    kinds = {kind(a[key]) if a.get(key) else None for a in objects}
    if len(kinds) > 1 or None in kinds:
        for annotation in objects:
            annotation.pop(key, None)


def decode_all(annotations: list[dict], height: int, width: int) -> None:
    for annotation in annotations:
        rle = annotation.get("segmentation")
        if isinstance(rle, list):
            rle = mask_util.merge(mask_util.frPyObjects(rle, height, width))
        if rle:
            assert 0 <= mask_util.area(rle) <= height * width
            mask_util.toBbox(rle)
            if height * width <= DECODED_PX:
                assert mask_util.decode(rle).max() <= 1


def survive_evaluation(document: dict) -> None:
    """As ground truth of boxes, and of masks where all objects have one."""
    document = copy.deepcopy(document)
    truth = COCO(document)
    listed = [a for a in document["annotations"] if a["image_id"] in truth.imgs]
    first = document["images"][0]
    found = {"image_id": first["id"], "category_id": document["categories"][0]["id"], "score": 0.5}
    tasks = {"bbox": {**found, "bbox": [1, 2, 3, 4]}}
    if first["height"] * first["width"] <= DECODED_PX and all(a.get("segmentation") for a in listed):
        mask = np.ones((first["height"], first["width"]), dtype=np.uint8, order="F")
        tasks["segm"] = {**found, "segmentation": mask_util.encode(mask)}
    for task, result in tasks.items():
        evaluation = COCOeval_faster(truth, truth.loadRes([result]), task, print_function=lambda _: None)
        evaluation.run()
        assert np.isfinite(evaluation.stats).all()


@pytest.mark.parametrize("load", [load_strictly, load_mended])
def test_the_valid_document_is_loaded(folder, load):
    """So that what follows is not refused altogether."""
    path = folder / "a.json"
    path.write_text(json.dumps(valid_document()))
    name = f"fuzz_{uuid.uuid4().hex}"
    records, document = load(name, path)
    MetadataCatalog.pop(name)
    assert [len(record["annotations"]) for record in records] == [3, 2] and document == valid_document()


@settings(fuzzed, max_examples=3000)
@given(mutated_documents())
@example(changed(lambda d, i, a: a[0].update(segmentation=[[1, 2, 2e8, 2, 1, 8]])))
@example(changed(lambda d, i, a: a[0].update(segmentation=[[1, 2, math.nan, 2, 1, 8]])))
@example(changed(lambda d, i, a: a[1]["segmentation"].update(counts=[5, 950])))
@example(changed(lambda d, i, a: a[2]["segmentation"].update(counts="1")))
@example(changed(lambda d, i, a: a[0].update(segmentation=[[1, 2, 3, 4]])))
@example(changed(lambda d, i, a: a[0].update(segmentation=[[1, 2, 3, 4], [1, 2, 9, 2, 1, 8]])))
@example(changed(lambda d, i, a: a[0].update(segmentation=[[]])))
@example(
    changed(lambda d, i, a: a[4].update(segmentation=[[0, 0, 300, 0, 300, 300]], bbox=[1, 1, 1e-4, 1e-4]))
)
@example(changed(lambda d, i, a: a[4].update(segmentation=[[0, 0, 20, 10] * 37], bbox=[1, 1, 1e-4, 1e-4])))
@example(changed(lambda d, i, a: i[0].update(width=99_999, height=5_000)))
@example(changed(lambda d, i, a: i[0].update(width=20.0)))
@example(changed(lambda d, i, a: i[0].update(width=None, file_name="\ufbc3")))  # no printable character
@example(changed(lambda d, i, a: a[0].update(id=10**400)))
def test_documents_with_a_few_wrong_values(folder, document):
    loads_or_refuses(json.dumps(document).encode(), folder)


@settings(fuzzed, max_examples=1500)
@given(plausible_documents())
def test_objects_of_any_shape(folder, document):
    loads_or_refuses(json.dumps(document).encode(), folder)


@settings(fuzzed, max_examples=800)
@given(st.one_of(whole_documents, whole_documents, any_json))
def test_any_json(folder, document):
    loads_or_refuses(json.dumps(document).encode(), folder)


@settings(fuzzed, max_examples=1000)
@given(mutated_files())
@example(b"[" * 100_000)
@example(b"\xef\xbb\xbf{}")
def test_files_with_changed_bytes(folder, content):
    loads_or_refuses(content, folder)
