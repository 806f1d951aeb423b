"""Subsets: known draws, nesting, independence of order and machine, shares of the strata, names."""

import hashlib
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from rethink_pretrain.data import register_coco_subset, register_subset
from rethink_pretrain.data.datasets import subsets
from rethink_pretrain.data.datasets.register_subset import base_name
from rethink_pretrain.errors import UserError

IDS = [9 + 7 * i for i in range(118_287)]


def find_python(version: str) -> str | None:
    """An interpreter of that version: on the path, or one that pyenv keeps without a name on the path."""
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    on_path = shutil.which(f"python{version}")
    for python in filter(None, (on_path, *map(str, pyenv.glob(f"versions/{version}.*/bin/python")))):
        if subprocess.run([python, "-c", "pass"], capture_output=True, timeout=60).returncode == 0:
            return python
    return None


class TestChoose:
    def test_by_hand(self):
        """Sorted by the hex digests, which order as their bytes do."""
        ids = list(range(20))
        by_hand = sorted(ids, key=lambda i: hashlib.sha256(b"3:" + str(i).encode()).hexdigest())
        assert subsets.choose(ids, 7, seed=3) == by_hand[:7]

    def test_nested(self):
        sets = [set(subsets.choose(IDS, n)) for n in (1_000, 3_500, 10_000, 35_000)]
        assert [len(chosen) for chosen in sets] == [1_000, 3_500, 10_000, 35_000]
        assert sets[0] < sets[1] < sets[2] < sets[3] < set(IDS)

    def test_order_does_not_matter(self):
        shuffled = random.Random(0).sample(IDS, len(IDS))
        assert subsets.choose(shuffled, 10_000) == subsets.choose(IDS, 10_000)

    def test_seeds_are_independent_draws(self):
        """Two draws of a tenth share a hundredth: 1,183 expected, standard deviation 31."""
        first, second = (set(subsets.choose(IDS, len(IDS) // 10, seed)) for seed in (0, 1))
        assert abs(len(first & second) - 1_183) < 5 * 31

    def test_uniform(self):
        """The mean rank of the chosen is the middle, to five standard errors."""
        chosen = subsets.choose(range(10_000), 1_000)
        assert abs(sum(chosen) / 1_000 - 4_999.5) < 5 * 2_887 / 1_000**0.5

    @pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
    def test_every_python_draws_the_same(self, version):
        """The module alone, by its path, in an interpreter that has none of our packages."""
        python = find_python(version)
        if python is None:
            pytest.skip(f"no Python {version} here")
        code = (
            "import runpy, sys; m = runpy.run_path(sys.argv[1]);"
            "print(m['digest'](m['choose']([9 + 7 * i for i in range(20000)], 1000)))"
        )
        done = subprocess.run(
            [python, "-I", "-c", code, subsets.__file__], capture_output=True, text=True, timeout=60
        )
        assert done.stdout.strip() == subsets.digest(subsets.choose(IDS[:20_000], 1000)), done.stderr


class TestStratified:
    def make(self, num_images: int = 4_000) -> dict[int, list[int]]:
        """Category 1 in every image, 2 in a tenth, 3 in a hundredth; a twentieth shows nothing."""
        rng = random.Random(0)
        shown = {}
        for image in range(num_images):
            extra = [c for c, share in ((2, 0.1), (3, 0.01)) if rng.random() < share]
            shown[image] = [] if rng.random() < 0.05 else [1, 1, *extra]
        return shown

    def test_strata_have_their_share(self):
        shown = self.make()
        strata = {category: {i for i, c in shown.items() if category in c} for category in (2, 3)}
        for number in (40, 400, 1_000):
            chosen = set(subsets.choose_stratified(shown, number))
            assert len(chosen) == number
            expected = len(strata[3]) * number / len(shown)
            assert abs(len(chosen & strata[3]) - expected) <= 1
            # Those with category 3 as well are counted there: one image off in each of two strata.
            assert abs(len(chosen & strata[2]) - len(strata[2]) * number / len(shown)) <= 2

    def test_nested(self):
        shown = self.make()
        sets = [set(subsets.choose_stratified(shown, n)) for n in (50, 500, 2_000, 4_000)]
        assert sets[0] < sets[1] < sets[2] < sets[3]

    def test_order_does_not_matter(self):
        shown = self.make()
        shuffled = dict(random.Random(1).sample(list(shown.items()), len(shown)))
        assert set(subsets.choose_stratified(shuffled, 500)) == set(subsets.choose_stratified(shown, 500))


def test_digest_is_of_the_set():
    assert subsets.digest([10, 9, 2]) == hashlib.sha256(b"10\n2\n9").hexdigest()
    assert subsets.digest(["2", 10, 9]) == subsets.digest([9, 2, 10])


def test_coverage():
    rows = subsets.coverage({0: "cat", 1: "dog", 2: "cow"}, [[0, 0, 1], [0], []])
    assert rows == [("cat", 2, 3), ("dog", 1, 1), ("cow", 0, 0)]
    words = subsets.describe_coverage(rows)
    assert words == "2 of 3 categories; missing: cow; in fewer than 10 images: cat (2), dog (1)"


class TestNames:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("coco_2017_train@10k", ("coco_2017_train", 10_000, None, 0, False)),
            ("coco_2017_train@3.5k", ("coco_2017_train", 3_500, None, 0, False)),
            ("a@3500@seed12", ("a", 3_500, None, 12, False)),
            ("a@10%", ("a", None, 0.1, 0, False)),
            ("a@0.5%@seed1@stratified", ("a", None, 0.005, 1, True)),
        ],
    )
    def test_parse(self, name, expected):
        assert subsets.parse_subset(name) == pytest.approx(expected)

    @pytest.mark.parametrize(
        "name", ["a", "a@", "@10k", "a@0", "a@1.5", "a@101%", "a@10k@1", "a@ten", "a@1G"]
    )
    def test_wrong(self, name):
        with pytest.raises(ValueError, match=r"not of the form NAME@SIZE.*coco_2017_train@10k"):
            subsets.parse_subset(name)


@pytest.fixture
def clean_catalog():
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)


@pytest.mark.usefixtures("datasets", "clean_catalog")
class TestRegistration:
    def test_by_name(self):
        register_subset("toy_train@10")
        register_subset("toy_train@10")
        records = DatasetCatalog.get("toy_train@10")
        whole = DatasetCatalog.get("toy_train")
        chosen = subsets.choose(range(1, 25), 10)
        assert {record["image_id"] for record in records} == set(chosen)
        assert all(record in whole for record in records)
        metadata, base = MetadataCatalog.get("toy_train@10"), MetadataCatalog.get("toy_train")
        assert metadata.subset_image_ids == chosen and metadata.subset_digest == subsets.digest(chosen)
        for key in ("json_file", "image_root", "evaluator_type", "thing_classes"):
            assert metadata.get(key) == base.get(key)

    def test_share(self):
        register_subset("toy_train@25%@seed4@stratified")
        assert len(DatasetCatalog.get("toy_train@25%@seed4@stratified")) == 6

    def test_from_python(self):
        register_coco_subset("toy_train_few", num_images=5, seed=2)
        assert len(DatasetCatalog.get("toy_train_few")) == 5
        with pytest.raises(UserError, match="already registered"):
            register_coco_subset("toy_train_few", num_images=6, seed=2)
        with pytest.raises(UserError, match="begins with no registered"):
            register_coco_subset("other_few", num_images=6)

    @pytest.mark.parametrize("name", ["toy_train@1k", "toy_train@0.1%"])
    def test_too_large_or_small(self, name):
        register_subset(name)
        with pytest.raises(UserError, match=r"toy_train has 24 images"):
            DatasetCatalog.get(name)

    def test_errors(self):
        with pytest.raises(UserError, match="unknown data set 'toys'"):
            register_subset("toys@10")
        with pytest.raises(UserError, match="not of the form"):
            register_subset("toy_train@ten")
        assert (base_name("toy_train@10"), base_name("toy_train")) == ("toy_train", "toy_train")

    def test_missing_categories_are_reported(self, caplog):
        register_subset("toy_train@1")
        with caplog.at_level("INFO"):
            DatasetCatalog.get("toy_train@1")
        assert "toy_train@1: 1 images, digest" in caplog.text and "missing: " in caplog.text


def test_sets_without_image_ids_are_told_apart_by_file_name(clean_catalog):
    records = [{"file_name": f"/some/folder/{i}.jpg"} for i in range(10)]
    DatasetCatalog.register("test_semantic", lambda: records)
    MetadataCatalog.get("test_semantic").set(evaluator_type="sem_seg")
    register_subset("test_semantic@4")
    names = {Path(record["file_name"]).name for record in DatasetCatalog.get("test_semantic@4")}
    assert names == set(subsets.choose([f"{i}.jpg" for i in range(10)], 4))
