import hashlib
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from rethink_pretrain.data import check_datasets, register_coco_subset, register_subset
from rethink_pretrain.data.datasets import subsets
from rethink_pretrain.errors import UserError

SOURCE = Path(subsets.__file__)
OTHER_PYTHONS = sorted(Path.home().glob(".pyenv/versions/3.1[0-9].*/bin/python"))


def test_order_is_that_of_sha256():
    def key(i):
        return hashlib.sha256(b"3:%d" % i).hexdigest()

    assert subsets.hash_order(range(50), seed=3) == sorted(range(50), key=key)


@pytest.mark.parametrize("stratified", [False, True])
def test_small_subsets_lie_in_large_ones_whatever_the_order_of_the_file(stratified):
    rng = np.random.default_rng(0)
    shown = {int(i): list(rng.integers(0, 9, rng.integers(0, 4))) for i in rng.permutation(2000)}
    shuffled = {i: shown[i] for i in sorted(shown)}

    def draw(images, number, seed=0):
        choose = subsets.choose_stratified if stratified else subsets.choose
        return choose(images, number, seed)

    last = set()
    for number in (1, 10, 35, 100, 1999, 2000):
        chosen = draw(shown, number)
        assert len(set(chosen)) == number and last <= set(chosen)
        assert chosen == draw(shuffled, number)
        last = set(chosen)
    assert set(draw(shown, 100, seed=1)) != set(draw(shown, 100))


def test_stratified_keeps_the_frequencies_of_rare_categories():
    """Category c in about 2000 / 2^c of 4000 images; 5 % of them should hold 5 % of each."""
    rng = np.random.default_rng(1)
    shown = {i: [c for c in range(8) if rng.random() < 0.5 ** (c + 1)] for i in range(4000)}
    full = Counter(c for cs in shown.values() for c in cs)
    for number in (200, 1000):
        chosen = subsets.choose_stratified(shown, number)
        part = Counter(c for i in chosen for c in shown[i])
        share = number / len(shown)
        # The rarest categories are strata of their own: exact up to rounding. Others vary less than a draw.
        assert abs(part[7] - share * full[7]) <= 1.5
        for c in range(8):
            assert abs(part[c] - share * full[c]) <= max(1.5, 3 * (share * full[c]) ** 0.5)


def test_digest_is_of_the_sorted_ids():
    assert subsets.digest([10, 9, 1]) == hashlib.sha256(b"1\n10\n9").hexdigest()
    assert subsets.digest(["000005"]) == hashlib.sha256(b"000005").hexdigest()


@pytest.mark.parametrize(
    ("name", "images", "share", "seed", "stratified"),
    [
        ("coco_2017_train@10k", 10_000, None, 0, False),
        ("a@3.5k", 3500, None, 0, False),
        ("a@2.01k", 2010, None, 0, False),
        ("a@3500@seed7", 3500, None, 7, False),
        ("a@10%@stratified", None, 0.1, 0, True),
        ("a@0.5%@seed2@stratified", None, 0.005, 2, True),
    ],
)
def test_names(name, images, share, seed, stratified):
    assert subsets.parse_subset(name)[1:] == (images, share, seed, stratified)


@pytest.mark.parametrize(
    "name", ["a@", "a@0", "a@1.5", "a@101%", "a@10k@seed", "a@ten", "@10k", "a@1k@stratifed"]
)
def test_wrong_names_are_answered_with_examples(name):
    with pytest.raises(UserError, match="coco_2017_train@10k"):
        register_subset(name)


def test_coverage_names_the_missing_and_the_rare():
    rows = subsets.coverage({0: "cat", 1: "dog", 2: "emu"}, [[0, 0], [0, 2], *[[0]] * 9])
    assert [tuple(row) for row in rows] == [("cat", 11, 12), ("dog", 0, 0), ("emu", 1, 1)]
    words = subsets.describe_coverage(rows)
    assert words == "2 of 3 categories; missing: dog; in fewer than 10 images: emu (1)"


@pytest.mark.skipif(not OTHER_PYTHONS, reason="no other Python here")
def test_every_python_draws_the_same():
    code = (
        "import importlib.util, sys; spec = importlib.util.spec_from_file_location('subsets', sys.argv[1]);"
        "m = importlib.util.module_from_spec(spec); sys.modules['subsets'] = m; spec.loader.exec_module(m);"
        "ids = [5 * i + 9 for i in range(3000)];"
        "shown = {i: [i % 7, i % 3] for i in ids};"
        "print(m.digest(m.choose(ids, 100)), m.digest(m.choose_stratified(shown, 100)))"
    )
    answers = {
        subprocess.check_output([str(python), "-I", "-c", code, str(SOURCE)], text=True)
        for python in (*OTHER_PYTHONS, sys.executable)
    }
    assert len(answers) == 1


def test_a_registered_subset_is_loaded_once_asked_for(datasets):
    name = "toy_train@10"
    register_subset(name)
    register_subset(name)
    check_datasets([name])
    full = {record["image_id"]: record for record in DatasetCatalog.get("toy_train")}
    records = DatasetCatalog.get(name)
    expected = sorted(sorted(full, key=lambda i: hashlib.sha256(f"0:{i}".encode()).digest())[:10])
    assert [record["image_id"] for record in records] == expected
    assert all(record == full[record["image_id"]] for record in records)
    metadata, base = MetadataCatalog.get(name), MetadataCatalog.get("toy_train")
    assert sorted(metadata.subset_image_ids) == expected
    for key in (
        "json_file",
        "image_root",
        "evaluator_type",
        "thing_classes",
        "thing_dataset_id_to_contiguous_id",
    ):
        assert metadata.get(key) == base.get(key)
    assert metadata.name == name


def test_the_base_follows_from_the_name(datasets):
    name = f"toy_train_{uuid.uuid4().hex}"
    register_coco_subset(name, num_images=5, stratified=True)
    assert len(DatasetCatalog.get(name)) == 5
    with pytest.raises(UserError, match="already registered as something else"):
        register_coco_subset(name, num_images=6)
    with pytest.raises(UserError, match="begins with no registered data set"):
        register_coco_subset("nowhere_10k", num_images=6)


def test_sizes_above_the_set_and_unknown_bases_are_refused(datasets):
    register_subset("toy_train@25")
    with pytest.raises(UserError, match="toy_train has 24 images"):
        DatasetCatalog.get("toy_train@25")
    with pytest.raises(UserError, match="unknown data set 'tyo_train'"):
        register_subset("tyo_train@10")


def test_image_ids_may_be_text(tmp_path):
    name = f"voc_like_{uuid.uuid4().hex}"
    DatasetCatalog.register(name, lambda: [{"image_id": f"{i:06d}", "annotations": []} for i in range(30)])
    register_subset(f"{name}@50%@seed4")
    ids = [f"{i:06d}" for i in range(30)]
    ids.sort(key=lambda i: hashlib.sha256(f"4:{i}".encode()).digest())
    assert {r["image_id"] for r in DatasetCatalog.get(f"{name}@50%@seed4")} == set(ids[:15])
