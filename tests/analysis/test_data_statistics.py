"""Objects and pixels of an average training image, against the host's own transforms and loader."""

import json

import numpy as np
import pytest
from conftest import SHORT_RUN, TOY_CONFIG
from detectron2.data import transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st

from rethink_pretrain.analysis.data_statistics import (
    LabelledImage,
    PerImage,
    Resizing,
    mean_area,
    per_image,
    per_image_of_paper,
    read_images,
    resized,
    training_phase,
)
from rethink_pretrain.config import load_config
from rethink_pretrain.data import RethinkDatasetMapper, build_train_loader
from rethink_pretrain.errors import UserError

side = st.integers(1, 3000)


class TestResized:
    @settings(max_examples=500, deadline=None)
    @given(side, side, st.integers(1, 1600), st.integers(1, 2000))
    def test_is_the_hosts_to_the_pixel(self, height, width, short, longest):
        ours = resized(np.array([(height, width)]), short, longest)
        assert tuple(ours[0]) == T.ResizeShortestEdge.get_output_shape(height, width, short, longest)

    def test_of_coco_sizes(self):
        sizes = np.array([(h, w) for h in range(200, 641, 4) for w in range(200, 641, 4)])
        for short in (640, 672, 704, 736, 768, 800):
            host = [T.ResizeShortestEdge.get_output_shape(h, w, short, 1333) for h, w in sizes.tolist()]
            np.testing.assert_array_equal(resized(sizes, short, 1333), host)

    def test_zero_leaves_the_image(self):
        assert resized(np.array([(30, 50)]), 0, 10).tolist() == [[30, 50]]


class TestMeanArea:
    SIZES = np.array([(48, 64), (48, 64), (90, 30)])

    @pytest.mark.parametrize(
        "resizing",
        [Resizing((20, 32, 47), 60, "choice"), Resizing((20, 28), 60, "range")],
        ids=lambda r: r.style,
    )
    def test_is_the_mean_of_what_the_host_draws(self, resizing):
        np.random.seed(0)
        resize = T.ResizeShortestEdge(resizing.sides, resizing.longest, resizing.style)
        images = [np.zeros((h, w, 3), np.uint8) for h, w in self.SIZES]
        draws = [resize.get_transform(image) for _ in range(3000) for image in images]
        drawn = np.mean([draw.new_h * draw.new_w for draw in draws])
        assert mean_area(self.SIZES, resizing) == pytest.approx(drawn, rel=0.02)

    def test_by_hand(self):
        # 24 x 32 and 48 x 64; of the last 24 x 72 cut to 20 x 60, and 48 x 144 cut to 20 x 60
        expected = (2 * (24 * 32 + 45 * 60) + 2 * 20 * 60) / 6
        assert mean_area(self.SIZES, Resizing((24, 48), 60)) == pytest.approx(expected)

    def test_a_range_includes_its_ends(self):
        assert Resizing((5, 7), 9, "range").draws == [5, 6, 7]
        assert mean_area(np.array([(10, 10)]), Resizing((5, 7), 9, "range")) == (25 + 36 + 49) / 3

    def test_square(self):
        assert mean_area(self.SIZES, Resizing((1024,), style="square")) == 1024**2


def write(path, images, annotations):
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


class TestReadImages:
    IMAGES = [{"id": i, "height": 10 * i, "width": 7} for i in (1, 2, 3)]
    OBJECTS = [
        {"image_id": 1, "keypoints": [1, 1, 2, 1, 1, 0, 1, 1, 1]},
        {"image_id": 1, "iscrowd": 0},
        {"image_id": 1, "iscrowd": 1},
        {"image_id": 2, "iscrowd": 1},
        {"image_id": "3", "iscrowd": 0},
        {"image_id": 99},
    ]

    def test_without_images_of_crowds_alone(self, tmp_path):
        path = write(tmp_path / "a.json", self.IMAGES, self.OBJECTS)
        assert read_images(path) == [LabelledImage(10, 7, 2), LabelledImage(30, 7, 1)]

    def test_all_images(self, tmp_path):
        path = write(tmp_path / "a.json", self.IMAGES, self.OBJECTS)
        assert [image.instances for image in read_images(path, only_with_objects=False)] == [2, 0, 1]

    def test_with_enough_keypoints(self, tmp_path):
        path = write(tmp_path / "a.json", self.IMAGES, self.OBJECTS)
        assert [image.height for image in read_images(path, min_keypoints=2)] == [10]

    @pytest.mark.parametrize(
        ("images", "annotations", "words"),
        [
            ([{"id": 1, "height": 2}], [], "'width'"),
            ([{"id": 1, "height": 2, "width": 0}], [{"image_id": 1}], "lacks height or width"),
            ([{"id": 1, "height": 2, "width": None}], [{"image_id": 1}], "lacks height or width"),
            ([{"id": "a", "height": 2, "width": 3}], [], "not in COCO's format"),
            (7, [], "not in COCO's format"),
            ([], [None], "not in COCO's format"),
            ([{"id": 1, "height": 2, "width": 3}], [], "no image to train on"),
        ],
    )
    def test_other_files_are_refused_in_one_line(self, tmp_path, images, annotations, words):
        path = write(tmp_path / "a.json", images, annotations)
        with pytest.raises(UserError, match=words) as error:
            read_images(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)

    def test_a_list_is_no_coco(self, tmp_path):
        (tmp_path / "a.json").write_text("[]")
        with pytest.raises(UserError, match="COCO's format"):
            read_images(tmp_path / "a.json")


@pytest.mark.parametrize("lsj", [False, True], ids=["resize", "lsj"])
def test_an_epoch_of_the_loader_sees_what_is_foretold(datasets, lsj):
    """Every image of the toy set once, mapped as in training."""
    opts = ["RETHINK.AUGMENTATION", "lsj", "RETHINK.LSJ_SIZE", "96"] if lsj else []
    cfg = load_config(TOY_CONFIG, opts=[*SHORT_RUN, "INPUT.MIN_SIZE_TRAIN", "(50,)", *opts])
    batches = iter(build_train_loader(cfg, RethinkDatasetMapper(cfg, is_train=True)))
    images = read_images(datasets / "toy" / "train.json")
    visits = [record for _ in range(len(images) // 2) for record in next(batches)]
    resizing = Resizing((96,), style="square") if lsj else Resizing((50,), 64)
    foretold = training_phase(len(visits), per_image(images, resizing, "toy")).samples
    assert len({record["image_id"] for record in visits}) == len(images) == foretold.images
    assert sum(record["image"].shape[1] * record["image"].shape[2] for record in visits) == pytest.approx(
        foretold.pixels
    )
    instances = sum(len(record["instances"]) for record in visits)
    assert instances <= foretold.instances if lsj else instances == pytest.approx(foretold.instances)


def test_the_papers_image():
    mean = per_image_of_paper(Resizing((800,), 1333), "coco_2017_train")
    assert mean.pixels == 800 * 1333 and mean.instances == pytest.approx(7.2705, abs=1e-4)
    assert "assumed for coco_2017_train" in mean.source


def test_a_training():
    phase = training_phase(1000, PerImage(2.5, 640.0, "here"))
    assert phase == ("training", (1000, 2500, 640_000), "1,000 images; here")
