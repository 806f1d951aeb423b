"""The toy classification set against its own drawings, torchvision's ImageFolder, and itself made again."""

import dataclasses
import json
import runpy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import shapely
from PIL import Image
from terminal import Terminal

from rethink_pretrain.data.datasets import toy, toy_classes, toy_render
from rethink_pretrain.errors import UserError
from rethink_pretrain.progress import Task

TOOL = Path(__file__).parents[2] / "tools" / "make_toy_dataset.py"
ARGUMENTS = {"num_train": 10, "num_val": 8, "image_size": 64, "seed": 0, "num_workers": 1}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image, dtype=np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("toy_classes") / "set"
    toy_classes.make_toy_classification(
        output, num_train=160, num_val=20, image_size=64, seed=0, num_workers=2
    )
    return output


class TestTree:
    def test_torchvision_reads_it(self, folder):
        datasets = pytest.importorskip("torchvision.datasets")
        train, val = (datasets.ImageFolder(str(folder / split)) for split in ("train", "val"))
        assert train.classes == val.classes == sorted(toy_classes.CLASSES)
        assert Counter(train.targets) == dict.fromkeys(range(8), 20)
        assert set(Counter(val.targets).values()) == {2, 3} and len(val) == 20
        assert all(image.size == (64, 64) and image.mode == "RGB" for image, _ in val)

    def test_names_are_the_detection_sets(self, folder):
        names = [path.name.replace("_", " ") for path in (folder / "train").iterdir()]
        assert sorted(names) == sorted(category["name"] for category in toy.CATEGORIES)
        assert (folder / "train" / "striped_star" / "000020.jpg").is_file()

    def test_info(self, folder):
        document = json.loads((folder / "info.json").read_text())
        assert document["info"] == {
            "generator": "rethink_pretrain toy classification set",
            "version": toy_classes.VERSION,
            "seed": 0,
            "image_size": 64,
            "num_train": 160,
            "num_val": 20,
        }
        assert document["classes"] == [category["name"].replace(" ", "_") for category in toy.CATEGORIES]


class TestReproducible:
    def test_same_bytes_for_any_number_of_workers(self, folder, tmp_path):
        toy_classes.make_toy_classification(tmp_path, 160, 20, 64, seed=0, num_workers=1)
        assert len(contents(tmp_path)) == 160 + 20 + 1
        assert contents(tmp_path) == contents(folder)

    def test_no_picture_twice(self, folder, tmp_path):
        toy_classes.make_toy_classification(tmp_path, 160, 20, 64, seed=1, num_workers=1)
        pictures = [
            data for at in (folder, tmp_path) for name, data in contents(at).items() if name.endswith(".jpg")
        ]
        assert len(set(pictures)) == len(pictures) == 360

    def test_counts_do_not_change_the_pictures(self, folder, tmp_path):
        toy_classes.make_toy_classification(tmp_path, 30, 8, 64, seed=0, num_workers=1)
        few, more = contents(tmp_path / "train"), contents(folder / "train")
        assert len(few) == 30
        assert few.items() <= more.items()

    @pytest.mark.parametrize("seed", [0, 7, 2**40])
    def test_other_random_numbers_than_the_detection_sets(self, monkeypatch, seed):
        """The first numbers that either maker draws, in both splits."""
        firsts = []
        default_rng = np.random.default_rng

        def listening(sequence):
            firsts.append(default_rng(sequence).random())
            return default_rng(sequence)

        monkeypatch.setattr(np.random, "default_rng", listening)
        for split in (0, 1):
            for index in range(4):
                toy.make_scene(seed, split, index, 64)
                toy_classes.make_picture(seed, split, index, 64)
        assert len(set(firsts)) == len(firsts) == 16


def redrawn(obj: toy_render.ToyObject, category_id: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """`obj` alone with the texture of a category: pixels (H, W, 3) and share of them that it covers (H, W).

    Outline, colours, place, size, and the texture's turn and phase stay.
    """
    canvas = np.zeros((size, size, 3), dtype=np.float32)
    (x0, y0, x1, y1), share = toy_render.draw_object(
        canvas, dataclasses.replace(obj, category_id=category_id)
    )
    full = np.zeros((size, size), dtype=np.float32)
    full[y0:y1, x0:x1] = share
    return canvas, full


class TestPictures:
    def test_labels_agree_with_the_drawing(self, folder):
        """Of the four textures, the class's own fits the pixels best; the outline has the shape's corners."""
        corners = {"disc": 36, "square": 4, "triangle": 3, "star": 10}
        one_of_each_texture = {category["name"].split()[0]: category["id"] for category in toy.CATEGORIES}
        for index in range(160):
            _, obj = toy_classes.make_picture(0, 0, index, 64)
            name = toy.CATEGORIES[index % 8]["name"]
            texture, shape = name.split()
            path = folder / "train" / name.replace(" ", "_") / f"{index // 8 + 1:06d}.jpg"
            pixels = pixels_of(path)
            errors = {}
            for other, category_id in one_of_each_texture.items():
                canvas, share = redrawn(obj, category_id, 64)
                errors[other] = np.abs(canvas - pixels)[share == 1].mean()
            assert min(errors, key=errors.get) == texture
            assert errors[texture] < 8 < 2 * sorted(errors.values())[1]
            assert len(obj.outline) == corners[shape]

    def test_the_object_is_there_and_nothing_else(self, folder):
        for index in range(0, 160, 5):
            _, obj = toy_classes.make_picture(0, 0, index, 64)
            pixels = pixels_of(toy_classes.picture_path(folder, 0, index))
            _, share = redrawn(obj, obj.category_id, 64)
            outside = share == 0
            stands_out = np.linalg.norm(pixels - np.median(pixels[outside], axis=0), axis=2) > 50
            assert stands_out[share == 1].mean() > 0.5
            assert stands_out[outside].mean() < 0.15  # a JPEG's blur beside the edge

    @pytest.mark.parametrize("image_size", [64, 200])
    def test_large_and_mostly_visible(self, image_size):
        sizes, shares, centers = [], [], []
        for index in range(64):
            image, obj = toy_classes.make_picture(3, 1, index, image_size)
            assert image.size == (image_size, image_size)
            silhouette = shapely.Polygon(obj.outline)
            inside = silhouette.intersection(shapely.box(0, 0, image_size, image_size))
            shares.append(inside.area / silhouette.area)
            sizes.append(obj.size / image_size)
            centers.append(obj.center / image_size)
        assert 0.45 <= min(sizes) < 0.55 and 0.8 < max(sizes) <= 0.9
        assert min(shares) > 0.8 and min(shares) < 0.95 < max(shares)
        assert (np.ptp(centers, axis=0) > 0.3).all()


class TestFolder:
    def test_second_run_does_nothing(self, tmp_path):
        first = toy_classes.make_toy_classification(tmp_path, **ARGUMENTS)
        written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        second = toy_classes.make_toy_classification(tmp_path, **ARGUMENTS)
        assert (first["already_there"], second["already_there"]) == (False, True)
        assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        assert second["images"] == 18 and second["classes"] == 8

    def test_interrupted_set_is_completed(self, tmp_path, monkeypatch):
        class Interrupting(Task):
            def advance(self, n: int = 1, status: str = "") -> None:
                super().advance(n, status)
                if self.done == 5:
                    raise KeyboardInterrupt

        half, whole = tmp_path / "half", tmp_path / "whole"
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("rethink_pretrain.progress.Task", Interrupting)
            toy_classes.make_toy_classification(half, **ARGUMENTS)
        assert not (half / "info.json").exists()
        with pytest.raises(UserError, match="seed=0"):
            toy_classes.make_toy_classification(half, **{**ARGUMENTS, "seed": 1})
        assert not toy_classes.make_toy_classification(half, **ARGUMENTS)["already_there"]
        toy_classes.make_toy_classification(whole, **ARGUMENTS)
        assert contents(half) == contents(whole)

    def test_lost_pictures_are_drawn_again(self, tmp_path):
        toy_classes.make_toy_classification(tmp_path, **ARGUMENTS)
        whole = contents(tmp_path)
        (tmp_path / "train" / "striped_disc" / "000002.jpg").unlink()
        assert not toy_classes.make_toy_classification(tmp_path, **ARGUMENTS)["already_there"]
        assert contents(tmp_path) == whole

    def test_a_bar_counts_the_pictures_of_all_workers(self, tmp_path):
        with Terminal() as terminal:
            toy_classes.make_toy_classification(tmp_path, **{**ARGUMENTS, "num_workers": 2})
        assert terminal.lines[0].startswith("Drawing") and " 18/18 " in terminal.lines[-1]

    def test_other_arguments_or_foreign_files_are_refused(self, tmp_path):
        toy_classes.make_toy_classification(tmp_path / "toy", **ARGUMENTS)
        with pytest.raises(UserError, match=r"num_train=10.*choose another --output or delete"):
            toy_classes.make_toy_classification(tmp_path / "toy", **{**ARGUMENTS, "num_train": 9})
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "info.json").write_text('{"info": {"year": 2017}}')
        for name in ("photos", "photos/info.json"):
            with pytest.raises(UserError, match="not a toy classification set; choose another --output"):
                toy_classes.make_toy_classification(tmp_path / name, **ARGUMENTS)
        with pytest.raises(UserError, match="Cannot write"):
            toy_classes.make_toy_classification(tmp_path / "photos" / "info.json" / "below", **ARGUMENTS)

    def test_the_two_kinds_of_toy_sets_refuse_each_other(self, tmp_path):
        toy_classes.make_toy_classification(tmp_path / "classes", **ARGUMENTS)
        toy.make_toy_dataset(tmp_path / "boxes", **ARGUMENTS)
        before = contents(tmp_path)
        with pytest.raises(UserError, match="not a toy detection set"):
            toy.make_toy_dataset(tmp_path / "classes", **ARGUMENTS)
        with pytest.raises(UserError, match="not a toy classification set"):
            toy_classes.make_toy_classification(tmp_path / "boxes", **ARGUMENTS)
        assert contents(tmp_path) == before

    @pytest.mark.parametrize(
        "wrong",
        [{"image_size": 63}, {"image_size": 2049}, {"num_train": 7}, {"num_val": 0}, {"num_workers": 0}],
    )
    def test_values_out_of_range(self, tmp_path, wrong):
        with pytest.raises(UserError, match=str(next(iter(wrong.values())))):
            toy_classes.make_toy_classification(tmp_path, **{**ARGUMENTS, **wrong})
        assert not any(tmp_path.iterdir())


def test_tool(tmp_path, monkeypatch, capsys):
    command = f"make_toy_dataset.py --classification --output {tmp_path} --num-train 16 --num-val 8"

    def run(*more: str) -> str:
        monkeypatch.setattr("sys.argv", command.split() + list(more))
        runpy.run_path(str(TOOL), run_name="__main__")
        return capsys.readouterr().out

    assert f"Wrote {tmp_path}: 24 images, 8 classes" in run("--num-workers", "1")
    assert "Already there" in run()
    assert json.loads((tmp_path / "info.json").read_text())["info"]["image_size"] == 64
    with pytest.raises(SystemExit, match="1"):
        run("--seed", "1")
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
