"""Reading: RAW against the arrays that were written, other formats against the host, and what is refused."""

import builtins

import numpy as np
import pytest
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from PIL import Image, ImageDraw, features

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


def photograph() -> Image.Image:
    """A picture with areas, edges and gradients, 60 x 40 px."""
    gradient = np.add.outer(np.arange(40), 2 * np.arange(60)).astype(np.uint8)
    image = Image.fromarray(np.dstack([gradient, gradient[::-1], 255 - gradient]))
    ImageDraw.Draw(image).ellipse((10, 5, 45, 35), fill=(200, 30, 90), outline=(0, 0, 0))
    return image


# Name -> mode and arguments of PIL's save.
KINDS = {
    "baseline.jpg": ("RGB", {}),
    "progressive.jpg": ("RGB", {"progressive": True}),
    "gray.jpg": ("L", {}),
    "cmyk.jpg": ("CMYK", {}),
    "rgb.png": ("RGB", {}),
    "gray.png": ("L", {}),
    "alpha.png": ("RGBA", {}),
    "gray_alpha.png": ("LA", {}),
    "palette.png": ("P", {}),
    "transparent_palette.png": ("P", {"transparency": 3}),
    "bits.png": ("1", {}),
    "rgb.bmp": ("RGB", {}),
    "palette.bmp": ("P", {}),
    "rgb.tif": ("RGB", {}),
    "lzw.tif": ("RGB", {"compression": "tiff_lzw"}),
    "jpeg.tif": ("RGB", {"compression": "jpeg"}),
    "cmyk.tif": ("CMYK", {}),
    "palette.gif": ("P", {}),
    "rgb.ppm": ("RGB", {}),
    "gray.pgm": ("L", {}),
    "two.mpo": ("RGB", {"save_all": True, "append_images": [Image.new("RGB", (60, 40))]}),
    "lossy.webp": ("RGB", {}),
    "alpha.webp": ("RGBA", {"lossless": True}),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("image_format", ["BGR", "RGB", "L", "YUV-BT.601"])
def test_other_formats_are_the_hosts(tmp_path, name, image_format):
    if name.endswith(".webp") and not features.check("webp"):
        pytest.skip("this PIL came without WebP")
    mode, arguments = KINDS[name]
    path = str(tmp_path / name)
    photograph().convert(mode).save(path, **arguments)
    ret, expected = read_image(path, image_format), detection_utils.read_image(path, image_format)
    assert ret.dtype == expected.dtype and ret.shape == (40, 60, 1 if image_format == "L" else 3)
    np.testing.assert_array_equal(ret, expected)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_other_formats_are_rotated_as_the_hosts(tmp_path, orientation, suffix):
    if suffix == ".webp" and not features.check("webp"):
        pytest.skip("this PIL came without WebP")
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    path = str(tmp_path / f"image{suffix}")
    photograph().save(path, exif=exif)
    np.testing.assert_array_equal(read_image(path, "BGR"), detection_utils.read_image(path, "BGR"))


def test_exif_that_is_broken_is_no_rotation_as_in_the_host(tmp_path):
    path = str(tmp_path / "image.jpg")
    photograph().save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(range(40)))
    np.testing.assert_array_equal(read_image(path, "BGR"), detection_utils.read_image(path, "BGR"))


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_of_several_frames_the_first_is_read(tmp_path, suffix):
    if suffix == ".webp" and not features.check("webp"):
        pytest.skip("this PIL came without WebP")
    path = tmp_path / f"image{suffix}"
    frames = [Image.new("RGB", (8, 6), color) for color in ("red", "green", "blue")]
    lossless = {"lossless": True} if suffix == ".webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **lossless)
    assert (read_image(str(path), "RGB") == [255, 0, 0]).all()


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
    (tmp_path / "image.tif").write_bytes(b"II*")
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
