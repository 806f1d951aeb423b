"""Reading RAW files of every kind, against the arrays that were written into them."""

import builtins

import numpy as np
import pytest
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from PIL import Image

from rethink_pretrain.data.images import read_image
from rethink_pretrain.errors import UserError

EXIF_ORIENTATION = 274


def random_image(channels: int, dtype: type, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (5, 7, channels), dtype=dtype)


def write(folder, image: np.ndarray, suffix: str) -> str:
    path = folder / f"image{suffix}"
    if suffix == ".npy":
        np.save(path, image)
    elif suffix == ".tif":
        tifffile = pytest.importorskip("tifffile")
        tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig")
    else:
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(path)
    return str(path)


@pytest.mark.parametrize(
    ("channels", "dtype", "suffix"),
    [
        *[(channels, np.uint8, ".png") for channels in (1, 2, 3, 4)],
        (1, np.uint16, ".png"),
        *[(channels, dtype, ".npy") for channels in (1, 3, 5) for dtype in (np.uint8, np.uint16)],
        *[(channels, dtype, ".tif") for channels in (2, 3, 5) for dtype in (np.uint8, np.uint16)],
    ],
)
def test_raw_keeps_every_value(tmp_path, channels, dtype, suffix):
    image = random_image(channels, dtype)
    ret = read_image(write(tmp_path, image, suffix), "RAW", channels)
    assert ret.shape == (5, 7, channels)
    assert ret.dtype == (np.uint8 if dtype is np.uint8 and channels in (1, 3) else np.float32)
    np.testing.assert_array_equal(ret, image)  # float32 holds every 16-bit value


def test_channels_in_planes_or_pages_come_last(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    image = random_image(5, np.uint16)
    planes, pages = tmp_path / "planes.tif", tmp_path / "pages.tiff"
    tifffile.imwrite(planes, image.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate")
    with tifffile.TiffWriter(pages) as writer:
        for channel in range(5):
            writer.write(image[:, :, channel], photometric="minisblack", contiguous=True)
    for path in (planes, pages):
        np.testing.assert_array_equal(read_image(str(path), "RAW", 5), image)


def test_flat_npy_is_one_channel(tmp_path):
    np.save(tmp_path / "image.npy", np.eye(4, 6))
    assert read_image(str(tmp_path / "image.npy"), "RAW", 1).shape == (4, 6, 1)


@pytest.mark.parametrize("image_format", ["BGR", "RGB", "L"])
def test_other_formats_are_the_hosts(tmp_path, image_format):
    image = Image.fromarray(random_image(3, np.uint8))
    exif = image.getexif()
    exif[EXIF_ORIENTATION] = 6
    image.save(tmp_path / "image.jpg", exif=exif)
    path = str(tmp_path / "image.jpg")
    ret = read_image(path, image_format)
    np.testing.assert_array_equal(ret, detection_utils.read_image(path, image_format))
    assert ret.shape[:2] == (7, 5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_raw_is_rotated_as_exif_says(tmp_path, orientation):
    image = Image.fromarray(random_image(3, np.uint8))
    exif = image.getexif()
    exif[EXIF_ORIENTATION] = orientation
    path = tmp_path / "image.png"
    image.save(path, exif=exif)
    np.testing.assert_array_equal(
        read_image(str(path), "RAW", 3), detection_utils.read_image(str(path), "RGB")
    )


def test_wrong_number_of_channels_names_file_both_numbers_and_the_fix(tmp_path):
    path = write(tmp_path, random_image(5, np.uint8), ".npy")
    with pytest.raises(UserError) as error:
        read_image(path, "RAW", 3)
    for part in (path, "5 channels found, 3 expected", "MODEL.PIXEL_MEAN", "INPUT.FORMAT"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", np.zeros((2, 2, 2, 2)), "2 x 2 x 2 x 2"),
        ("a.npy", np.full((2, 2), np.nan), "NaN"),
        ("a.npy", np.array([[{}]]), "Cannot read"),
        ("a.npy", np.array([["x"]]), "real numbers"),
        ("a.npy", b"no array", "Cannot read"),
        ("a.png", b"no image", "Cannot read"),
        ("absent.png", None, "Cannot read"),
    ],
)
def test_unusable_files_are_the_users_errors(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, np.ndarray):
        np.save(path, content, allow_pickle=True)
    elif content:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_image(str(path), "RAW")
    assert str(path) in str(error.value)


def test_broken_tiff_is_the_users_error(tmp_path):
    pytest.importorskip("tifffile")
    (tmp_path / "a.tif").write_bytes(b"no image")
    with pytest.raises(UserError, match="Cannot read"):
        read_image(str(tmp_path / "a.tif"), "RAW")


def test_png_that_pil_would_cut_to_8_bits_is_refused(tmp_path):
    path = tmp_path / "image.png"
    Image.fromarray(random_image(3, np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    assert data[24:26] == bytes([8, 2])  # bits per channel and colour type RGB
    data[24] = 16
    path.write_bytes(data)
    with pytest.raises(UserError, match="16-bit PNG"):
        read_image(str(path), "RAW")


def test_palette_is_refused(tmp_path):
    Image.fromarray(random_image(3, np.uint8)).convert("P").save(tmp_path / "image.png")
    with pytest.raises(UserError, match="palette"):
        read_image(str(tmp_path / "image.png"), "RAW")


def test_without_tifffile_the_error_names_the_command(tmp_path, monkeypatch):
    original = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "tifffile":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    (tmp_path / "image.tif").write_bytes(b"")
    with pytest.raises(UserError, match="pip install tifffile"):
        read_image(str(tmp_path / "image.tif"), "RAW")


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (3, np.uint8), (4, np.uint8), (5, np.uint16)])
def test_hosts_transforms_take_what_is_read(tmp_path, channels, dtype):
    """A constant stays constant per channel when resized; a flip moves columns and no channels."""
    image = np.empty((6, 8, channels), dtype)
    image[:] = 40 * np.arange(1, channels + 1)
    image[:, :4, 0] = 0
    ret = read_image(write(tmp_path, image, ".npy"), "RAW", channels)
    flipped = T.HFlipTransform(8).apply_image(ret)
    np.testing.assert_array_equal(flipped, image[:, ::-1])
    resized = T.ResizeTransform(6, 8, 12, 16).apply_image(flipped)  # also from negative strides
    assert resized.shape == (12, 16, channels)
    np.testing.assert_allclose(resized[:, :, 1:], np.broadcast_to(image[0, 0, 1:], (12, 16, channels - 1)))
    np.testing.assert_allclose(resized[:, 10:, 0], 0)
    np.testing.assert_allclose(resized[:, :6, 0], 40)
