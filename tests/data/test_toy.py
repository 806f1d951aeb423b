"""The toy set against pycocotools, its own pictures, and itself made again."""

import json
import runpy
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import shapely
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from terminal import Terminal

from rethink_pretrain.data.datasets import toy, toy_render
from rethink_pretrain.errors import UserError
from rethink_pretrain.progress import Task

TOOL = Path(__file__).parents[2] / "tools" / "make_toy_dataset.py"
ARGUMENTS = {"num_train": 3, "num_val": 1, "image_size": 64, "seed": 0, "num_workers": 1}
VERTICES = {"disc": 36, "square": 4, "triangle": 3, "star": 10}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def eroded(mask: np.ndarray) -> np.ndarray:
    """`mask` (H, W) without its outermost pixels; those at the image's edge stay."""
    padded = np.pad(mask, 1, constant_values=True)
    return mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("toy") / "set"
    toy.make_toy_dataset(output, num_train=300, num_val=5, image_size=128, seed=0, num_workers=2)
    return output


@pytest.fixture(scope="module")
def coco(folder) -> COCO:
    return COCO(str(folder / "train.json"))


@pytest.fixture(scope="module")
def objects(coco) -> list[dict]:
    return [annotation for annotation in coco.anns.values() if not annotation["iscrowd"]]


@pytest.fixture(scope="module")
def masks(coco) -> dict[int, np.ndarray]:
    return {i: coco.annToMask(annotation).astype(bool) for i, annotation in coco.anns.items()}


class TestReproducible:
    def test_same_bytes_for_any_number_of_workers(self, tmp_path):
        for workers in (1, 2):
            toy.make_toy_dataset(tmp_path / str(workers), 20, 4, 96, seed=3, num_workers=workers)
        one, two = contents(tmp_path / "1"), contents(tmp_path / "2")
        assert len(one) == 2 * (20 + 4) + 2  # pictures, labels, two json files
        assert one == two

    def test_another_seed_is_another_set(self, tmp_path):
        for seed in (0, 1):
            toy.make_toy_dataset(tmp_path / str(seed), 3, 3, 64, seed=seed, num_workers=1)
        zero, one = contents(tmp_path / "0"), contents(tmp_path / "1")
        assert not any(zero[name] == one[name] for name in zero)
        assert zero["train/000001.jpg"] != zero["val/000001.jpg"]

    def test_counts_do_not_change_the_pictures(self, tmp_path):
        toy.make_toy_dataset(tmp_path / "few", 4, 0, 64, seed=0, num_workers=1)
        toy.make_toy_dataset(tmp_path / "more", 6, 2, 64, seed=0, num_workers=1)
        few, more = contents(tmp_path / "few" / "train"), contents(tmp_path / "more" / "train")
        assert len(few) == 4
        assert few.items() <= more.items()


class TestAnnotations:
    def test_ids_and_sizes(self, folder, coco):
        assert sorted(coco.cats) == list(range(1, 9))
        assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))
        formats = set()
        for record in coco.imgs.values():
            with Image.open(folder / "train" / record["file_name"]) as image:
                assert image.size == (record["width"], record["height"])
            assert max(image.size) == 128
            formats.add(np.sign(record["width"] - record["height"]))
        assert formats == {-1, 0, 1}

    def test_area_and_box_agree_with_the_rasterised_polygon(self, objects, masks):
        ratios, inside = [], []
        for annotation in objects:
            mask = masks[annotation["id"]]
            perimeter = sum(
                shapely.Polygon(np.reshape(p, (-1, 2))).length for p in annotation["segmentation"]
            )
            assert abs(mask.sum() - annotation["area"]) <= 0.35 * perimeter + 2
            if annotation["area"] > 400:
                ratios.append(mask.sum() / annotation["area"])
            rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
            pixel_box, box = coco_mask.toBbox(rle), np.array(annotation["bbox"])
            inside += [*(pixel_box[:2] - box[:2]), *((box[:2] + box[2:]) - (pixel_box[:2] + pixel_box[2:]))]
        assert np.min(inside) > -0.6
        assert abs(np.median(inside)) < 0.3
        # A sharp corner, more so one that an occlusion cut, covers less than half of its last pixels, which a
        # mask then lacks; by 2.84 px at most here.
        assert np.quantile(inside, 0.99) < 2 and np.max(inside) < 3
        assert abs(np.mean(ratios) - 1) < 0.02

    def test_polygons_lie_in_the_image(self, coco, objects):
        for annotation in objects:
            record = coco.imgs[annotation["image_id"]]
            for polygon in annotation["segmentation"]:
                points = np.reshape(polygon, (-1, 2))
                assert len(points) >= 3
                assert (points != np.roll(points, 1, axis=0)).any(axis=1).all()
                assert (points >= 0).all()
                assert (points <= (record["width"], record["height"])).all()

    def test_visible_regions_do_not_overlap(self, coco, masks):
        for annotations in coco.imgToAnns.values():
            count = sum(eroded(masks[annotation["id"]]).astype(int) for annotation in annotations)
            assert count.max() <= 1

    def test_crowds_are_clusters_as_run_lengths(self, coco, masks):
        crowds = [annotation for annotation in coco.anns.values() if annotation["iscrowd"]]
        assert len(crowds) >= 5
        for crowd in crowds:
            record = coco.imgs[crowd["image_id"]]
            counts = crowd["segmentation"]["counts"]
            assert crowd["segmentation"]["size"] == [record["height"], record["width"]]
            assert sum(counts) == record["height"] * record["width"]
            rle = coco.annToRLE(crowd)
            assert crowd["area"] == coco_mask.area(rle) == masks[crowd["id"]].sum()
            assert crowd["bbox"] == coco_mask.toBbox(rle).tolist()
            assert crowd["area"] < 0.6 * crowd["bbox"][2] * crowd["bbox"][3]

    def test_uncompressed_rle(self):
        mask = np.random.default_rng(0).random((7, 5)) < 0.5
        for case in (mask, ~mask, np.ones_like(mask), np.zeros_like(mask)):
            rle = coco_mask.frPyObjects(toy.uncompressed_rle(case), *case.shape)
            np.testing.assert_array_equal(coco_mask.decode(rle), case)


class TestContent:
    def test_every_category_and_empty_images(self, coco, objects):
        per_category = Counter(annotation["category_id"] for annotation in objects)
        assert len(per_category) == 8
        assert min(per_category.values()) > 0.5 * max(per_category.values())
        per_image = Counter(len(coco.imgToAnns[i]) for i in coco.imgs)
        assert 0.01 < per_image[0] / len(coco.imgs) < 0.15
        assert per_image[1] and per_image[5]

    def test_neither_shape_nor_texture_names_the_category(self):
        textures, shapes = zip(*(category["name"].split() for category in toy.CATEGORIES), strict=True)
        assert set(Counter(textures).values()) == set(Counter(shapes).values()) == {2}
        assert len(set(zip(textures, shapes, strict=True))) == 8

    def test_tiny_occluded_split_and_touching_objects(self, coco, objects):
        assert sum(max(annotation["bbox"][2:]) < 10 for annotation in objects) >= 10
        occluded = split = 0
        for annotation in objects:
            record, (x, y, w, h) = coco.imgs[annotation["image_id"]], annotation["bbox"]
            truncated = min(x, y, record["width"] - x - w, record["height"] - y - h) < 0.01
            shape = coco.cats[annotation["category_id"]]["supercategory"]
            lengths = [len(polygon) // 2 for polygon in annotation["segmentation"]]
            occluded += not truncated and lengths != [VERTICES[shape]]
            split += len(lengths) > 1
        assert occluded >= 20
        assert split >= 2
        assert self.touching_pairs(objects) >= 20

    def touching_pairs(self, objects: list[dict]) -> int:
        """Pairs of visible regions that meet, by occlusion or side by side."""
        per_image = defaultdict(list)
        for annotation in objects:
            parts = [shapely.Polygon(np.reshape(p, (-1, 2))) for p in annotation["segmentation"]]
            per_image[annotation["image_id"]].append(shapely.MultiPolygon(parts))
        return sum(
            first.distance(second) < 0.05
            for regions in per_image.values()
            for i, first in enumerate(regions)
            for second in regions[:i]
        )

    def test_objects_are_drawn_where_annotated_and_nowhere_else(self, folder, coco, masks):
        for image_id, record in coco.imgs.items():
            pixels = np.asarray(Image.open(folder / "train" / record["file_name"]), dtype=float)
            free = np.ones(pixels.shape[:2], dtype=bool)
            found = coco.imgToAnns[image_id]
            for annotation in found:
                free &= ~masks[annotation["id"]]
            for _ in range(3):
                free = eroded(free)
            stands_out = np.linalg.norm(pixels - np.median(pixels[free], axis=0), axis=2) > 50
            assert stands_out[free].mean() < 0.01
            for annotation in found:
                inside = eroded(masks[annotation["id"]])
                # A ramp between two colours may pass through the background's; the other textures may not.
                assert inside.sum() < 12 or stands_out[inside].mean() > 0.5

    def test_colour_carries_no_class(self):
        rng = np.random.default_rng(0)
        means = []
        for category in toy.CATEGORIES:
            total = np.zeros(3)
            for _ in range(200):
                canvas, background, _ = toy_render.sample_background(rng, 32, 32)
                obj = toy_render.sample_object(rng, category["id"], np.array([16.0, 16.0]), 28.0, background)
                toy_render.draw_object(canvas, obj)
                total += canvas[10:22, 10:22].mean(axis=(0, 1))
            means.append(total / 200)
        # One object's mean colour spreads by about 45 of 255, so a category's mean by about 3.
        np.testing.assert_allclose(means, np.broadcast_to(np.mean(means, axis=0), (8, 3)), atol=14)


class TestRendering:
    def test_coverage_keeps_area_and_place(self):
        outline = np.array([[12.3, 4.0], [30.7, 9.5], [15.1, 27.9]])
        share = toy_render.coverage(outline, 10, 2, 34, 30)
        assert share.shape == (28, 24)
        assert share.sum() == pytest.approx(shapely.Polygon(outline).area, rel=0.02)
        y, x = np.mgrid[2:30, 10:34] + 0.5
        center = [(share * x).sum() / share.sum(), (share * y).sum() / share.sum()]
        np.testing.assert_allclose(center, outline.mean(axis=0), atol=0.1)

    @pytest.mark.parametrize(
        ("texture", "second", "first"),
        [
            ("striped", [(4, 0), (4, 3), (12, 5)], [(0, 0), (8, 3)]),
            ("ringed", [(0, 0), (1, 1)], [(3, 0), (-2, 2), (8, 8)]),
            ("checked", [(4, 4), (0, 0), (8, 0)], [(4, 0), (0, 4), (8, 4)]),
            ("shaded", [(4, 0)], [(-4, 0)]),
        ],
    )
    def test_textures_at_points_of_a_period_of_8_px(self, texture, second, first):
        def share(u, v):
            return np.clip(toy_render.TEXTURES[texture].pattern(np.float64(u), np.float64(v), 8.0), 0, 1)

        assert [share(*point) for point in second] == [1.0] * len(second)
        assert [share(*point) for point in first] == [0.0] * len(first)

    def test_drawing_outside_the_image_changes_nothing(self):
        canvas = np.zeros((20, 20, 3), dtype=np.float32)
        rng = np.random.default_rng(0)
        for center in ((-30.0, 5.0), (60.0, 60.0)):
            obj = toy_render.sample_object(rng, 1, np.array(center), 20.0, np.zeros(3))
            toy_render.draw_object(canvas, obj)
        assert not canvas.any()


class TestFolder:
    def test_second_run_does_nothing(self, tmp_path):
        first = toy.make_toy_dataset(tmp_path, **ARGUMENTS)
        written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        second = toy.make_toy_dataset(tmp_path, **ARGUMENTS)
        assert (first["already_there"], second["already_there"]) == (False, True)
        assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        assert second["images"] == 4
        assert second["objects"] == first["objects"] > 0

    def test_interrupted_set_is_not_complete_and_can_be_completed(self, tmp_path, monkeypatch):
        class Interrupting(Task):
            def advance(self, n: int = 1, status: str = "") -> None:
                super().advance(n, status)
                if self.done == 2:
                    raise KeyboardInterrupt

        half, whole = tmp_path / "half", tmp_path / "whole"
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("rethink_pretrain.progress.Task", Interrupting)
            toy.make_toy_dataset(half, **ARGUMENTS)
        assert not (half / "train.json").exists()
        with pytest.raises(UserError, match="seed=0"):
            toy.make_toy_dataset(half, **{**ARGUMENTS, "seed": 1})
        assert not toy.make_toy_dataset(half, **ARGUMENTS)["already_there"]
        toy.make_toy_dataset(whole, **ARGUMENTS)
        assert contents(half) == contents(whole)

    def test_a_bar_counts_the_pictures_of_all_workers(self, tmp_path):
        with Terminal() as terminal:
            toy.make_toy_dataset(tmp_path, **{**ARGUMENTS, "num_workers": 2})
        assert terminal.lines[0].startswith("Drawing") and " 4/4 " in terminal.lines[-1]

    def test_lost_pictures_are_drawn_again(self, tmp_path):
        toy.make_toy_dataset(tmp_path, **ARGUMENTS)
        whole = contents(tmp_path)
        (tmp_path / "train" / "000002.jpg").unlink()
        assert not toy.make_toy_dataset(tmp_path, **ARGUMENTS)["already_there"]
        assert contents(tmp_path) == whole

    def test_nothing_to_draw(self, tmp_path):
        toy.make_toy_dataset(tmp_path, **{**ARGUMENTS, "num_train": 0, "num_val": 0})
        assert json.loads((tmp_path / "train.json").read_text())["images"] == []

    def test_other_arguments_or_foreign_files_are_refused(self, tmp_path):
        toy.make_toy_dataset(tmp_path / "toy", **ARGUMENTS)
        with pytest.raises(UserError, match=r"num_train=3.*choose another --output or delete"):
            toy.make_toy_dataset(tmp_path / "toy", **{**ARGUMENTS, "num_train": 5})
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "train.json").write_text('{"info": {"year": 2017}}')
        for name in ("photos", "photos/train.json"):
            with pytest.raises(UserError, match="choose another --output"):
                toy.make_toy_dataset(tmp_path / name, **ARGUMENTS)
        with pytest.raises(UserError, match="Cannot write"):
            toy.make_toy_dataset(tmp_path / "photos" / "train.json" / "below", **ARGUMENTS)

    @pytest.mark.parametrize(
        "wrong",
        [{"image_size": 63}, {"image_size": 2049}, {"num_train": -1}, {"seed": -1}, {"num_workers": 0}],
    )
    def test_values_out_of_range(self, tmp_path, wrong):
        with pytest.raises(UserError, match=str(next(iter(wrong.values())))):
            toy.make_toy_dataset(tmp_path, **{**ARGUMENTS, **wrong})
        assert not any(tmp_path.iterdir())

    @pytest.mark.parametrize("image_size", [64, 800])
    def test_object_sizes_follow_the_image_size(self, image_size):
        sides = [
            max(annotation["bbox"][2:])
            for index in range(12)
            for annotation in toy.make_scene(0, 0, index, image_size)[1]
            if not annotation["iscrowd"]
        ]
        assert np.max(sides) < 0.7 * image_size
        assert 0.08 * image_size < np.median(sides) < 0.4 * image_size


def test_tool(tmp_path, monkeypatch, capsys):
    command = (
        f"make_toy_dataset.py --output {tmp_path} --num-train 4 --num-val 2 --image-size 64 --num-workers 1"
    )

    def run(*more: str) -> str:
        monkeypatch.setattr("sys.argv", command.split() + list(more))
        runpy.run_path(str(TOOL), run_name="__main__")
        return capsys.readouterr().out

    assert f"Wrote {tmp_path}: 6 images" in (first := run())
    assert "Next: python tools/train_net.py" in first
    assert "Already there" in run()
    with pytest.raises(SystemExit, match="1"):
        run("--seed", "1")
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
