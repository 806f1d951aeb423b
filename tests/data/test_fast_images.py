"""Fast images against PIL's: the same JPEG pixels, resizing within 1 grey level, the same refusals."""

import io

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from PIL import Image

from rethink_pretrain.config.defaults import add_rethink_config
from rethink_pretrain.data import RethinkDatasetMapper, build_mapper, read_image
from rethink_pretrain.data.fast_images import FastAugInput, decode_jpeg
from rethink_pretrain.errors import UserError

RNG = np.random.default_rng(0)


def photo(height: int, width: int) -> np.ndarray:
    """Smooth colours with noise."""
    coarse = RNG.integers(0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC)).astype(int)
    return np.clip(smooth + RNG.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)


def save(folder, image: np.ndarray, name: str = "image.jpg", **options) -> str:
    Image.fromarray(image).save(folder / name, **options)
    return str(folder / name)


@pytest.fixture
def decoded(monkeypatch) -> list[bool]:
    """Of each file read, whether libjpeg-turbo decoded it."""
    seen = []

    def spied(*args):
        ret = decode_jpeg(*args)
        seen.append(ret is not None)
        return ret

    monkeypatch.setattr("rethink_pretrain.data.images.decode_jpeg", spied)
    return seen


@pytest.mark.parametrize("image_format", ["RGB", "BGR"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("quality", [10, 50, 75, 90, 100])
def test_jpeg_has_pils_pixels(tmp_path, decoded, quality, subsampling, progressive, image_format):
    for height, width in ((48, 64), (33, 47), (17, 16), (1, 1), (101, 8)):
        options = {"quality": quality, "subsampling": subsampling, "progressive": progressive}
        path = save(tmp_path, photo(height, width), **options)
        fast = read_image(path, image_format, fast_images=True)
        np.testing.assert_array_equal(fast, read_image(path, image_format))
        assert fast.dtype == np.uint8 and fast.flags.c_contiguous
    assert decoded == [True] * 5


@pytest.mark.parametrize("orientation", range(10))
def test_pil_turns_what_exif_turns(tmp_path, decoded, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, photo(20, 30), exif=exif)
    np.testing.assert_array_equal(read_image(path, "BGR", fast_images=True), read_image(path, "BGR"))
    assert decoded == [orientation == 1]


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_pil_decodes_other_colours(tmp_path, decoded, mode):
    Image.fromarray(photo(20, 30)).convert(mode).save(tmp_path / "image.jpg")
    path = str(tmp_path / "image.jpg")
    np.testing.assert_array_equal(read_image(path, "BGR", fast_images=True), read_image(path, "BGR"))
    assert decoded == [False]


def test_pil_decodes_other_formats(tmp_path, decoded):
    path = save(tmp_path, photo(20, 30), "image.png")
    np.testing.assert_array_equal(read_image(path, "RGB", fast_images=True), read_image(path, "RGB"))
    gray = save(tmp_path, photo(20, 30))
    np.testing.assert_array_equal(read_image(gray, "L", fast_images=True), read_image(gray, "L"))
    assert decoded == [False, False]


def outcome(path: str, fast: bool) -> tuple:
    """The pixels, or the error's words."""
    try:
        return read_image(path, "BGR", fast_images=fast).tobytes(), ""
    except UserError as error:
        return b"", str(error)


def test_broken_files_come_to_the_same(tmp_path):
    """Cut at every length, and with bytes changed: the same pixels or the same words."""
    buffer = io.BytesIO()
    Image.fromarray(photo(40, 40)).save(buffer, "JPEG", quality=60)
    content, path, refused = buffer.getvalue(), tmp_path / "image.jpg", 0
    broken = [content[:length] for length in range(0, len(content), 7)]
    broken += [content[:-2], content + b"\0" * 100, b"\xff" + content, content + content]
    for place in RNG.integers(2, len(content), 300):
        broken.append(content[:place] + bytes([RNG.integers(256)]) + content[place + 1 :])
    for each in broken:
        path.write_bytes(each)
        pixels, message = outcome(str(path), fast=True)
        assert (pixels, message) == outcome(str(path), fast=False)
        refused += bool(message)
    assert refused > 100


def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, decoded):
    path = save(tmp_path, photo(20, 30))
    with pytest.raises(UserError, match=r"larger than RETHINK\.MAX_IMAGE_PIXELS 599"):
        read_image(path, "BGR", max_pixels=599, fast_images=True)
    assert decoded == []


def test_a_file_much_longer_than_its_image_is_not_read_whole(tmp_path, decoded):
    path = save(tmp_path, photo(20, 30))
    expected = read_image(path, "BGR")
    with open(path, "ab") as file:
        file.write(b"\0" * (2**20 + 1800))
    np.testing.assert_array_equal(read_image(path, "BGR", fast_images=True), expected)
    assert decoded == [False]


@pytest.mark.parametrize("noise", [True, False])
def test_resizing_is_within_one_grey_level_of_pils(noise):
    for height, width, new_height, new_width in [*RNG.integers(3, 160, (120, 4)), (480, 640, 800, 1067)]:
        image = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8) if noise else photo(height, width)
        inputs, resize = FastAugInput(image), T.ResizeTransform(height, width, new_height, new_width)
        inputs.transform(resize)
        expected = resize.apply_image(image)
        assert inputs.image.shape == expected.shape and inputs.image.dtype == np.uint8
        assert np.abs(inputs.image.astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 9, 3), np.float32), np.zeros((8, 9, 1), np.uint8), np.zeros((8, 9), np.uint8)],
)
def test_other_arrays_are_resized_as_by_the_host(image):
    image = image + RNG.integers(0, 99, image.shape).astype(image.dtype)
    resize, inputs = T.ResizeTransform(8, 9, 13, 5), FastAugInput(image)
    inputs.transform(resize)
    np.testing.assert_array_equal(inputs.image, resize.apply_image(image))


def test_labels_and_other_transforms_are_the_hosts():
    image, labels = photo(20, 30), RNG.integers(0, 9, (20, 30)).astype(np.uint8)
    chain = T.TransformList([T.CropTransform(3, 2, 20, 15), T.HFlipTransform(20), T.VFlipTransform(15)])
    inputs, host = FastAugInput(image, sem_seg=labels), T.AugInput(image, sem_seg=labels)
    for each in (chain, T.ResizeTransform(15, 20, 15, 20)):
        inputs.transform(each)
        host.transform(each)
    np.testing.assert_array_equal(inputs.image, host.image)
    np.testing.assert_array_equal(inputs.sem_seg, host.sem_seg)


def make_cfg(fast: bool = True) -> CfgNode:
    ret = get_cfg()
    add_rethink_config(ret)
    ret.INPUT.MIN_SIZE_TRAIN, ret.RETHINK.LSJ_SIZE = (30, 50), 48
    ret.RETHINK.SPEED.FAST_IMAGES = fast
    return ret


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical"])
@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("name", ["image.jpg", "image.png"])
def test_the_mapper_is_within_one_grey_level_of_the_hosts(tmp_path, is_train, flip, crop, name):
    cfg = make_cfg()
    cfg.INPUT.RANDOM_FLIP, cfg.INPUT.CROP.ENABLED = flip, crop
    record = {"file_name": save(tmp_path, photo(40, 60), name), "height": 40, "width": 60}
    own, host = RethinkDatasetMapper(cfg, is_train), DatasetMapper(cfg, is_train)
    for seed in range(6):
        images = []
        for mapper in (own, host):
            np.random.seed(seed)
            images.append(mapper(record)["image"])
        assert images[0].shape == images[1].shape and images[0].dtype == torch.uint8
        assert (images[0].int() - images[1].int()).abs().max() <= 1


@pytest.mark.parametrize("augmentation", ["resize", "lsj"])
def test_the_switch_is_the_hosts_images_and_draws_are_the_same(tmp_path, augmentation):
    record = {"file_name": save(tmp_path, photo(40, 60)), "height": 40, "width": 60}
    mappers = []
    for fast in (True, False):
        cfg = make_cfg(fast)
        cfg.RETHINK.AUGMENTATION = augmentation
        mappers.append(RethinkDatasetMapper(cfg, True))
    assert [mapper.fast_images for mapper in mappers] == [True, False]
    for seed in range(6):
        images, states = [], []
        for mapper in mappers:
            np.random.seed(seed)
            images.append(mapper(record)["image"])
            states.append(np.random.get_state()[2])
        assert states[0] == states[1]
        assert (images[0].int() - images[1].int()).abs().max() <= 1


def test_raw_stays_as_it_is(tmp_path):
    cfg = make_cfg()
    cfg.INPUT.FORMAT, cfg.INPUT.RANDOM_FLIP = "RAW", "none"
    path = save(tmp_path, photo(40, 60))
    image = build_mapper(cfg, False)({"file_name": path})["image"]
    resize = T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
    stored = read_image(path, "RAW")
    expected = resize.get_transform(stored).apply_image(stored)
    np.testing.assert_array_equal(image.permute(1, 2, 0), expected)
