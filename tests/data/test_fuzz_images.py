"""Mutated image files: each is read as an image, or refused in one line. Nothing else, and at once."""

import contextlib
import io
import resource
import signal
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, features
from test_images import photograph

from rethink_pretrain.data.images import MAX_PIXELS, read_image
from rethink_pretrain.errors import UserError

SECONDS = 10  # for reading one file, which takes milliseconds
MEMORY_KIB = 1_000_000

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # PIL's, about what is wrong with a file
    pytest.mark.usefixtures("little_memory"),
]


class Hang(BaseException):
    """No `Exception`: reading catches those."""


@contextlib.contextmanager
def alarm() -> Iterator[None]:
    def ring(number: int, frame: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def little_memory() -> Iterator[None]:
    """No test of this file takes more than that."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + MEMORY_KIB


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def saved(mode: str, kind: str, **arguments: object) -> bytes:
    buffer = io.BytesIO()
    photograph().resize((30, 20)).convert(mode).save(buffer, format=kind, **arguments)
    return buffer.getvalue()


def deep(kind: str) -> bytes:
    image = (np.asarray(photograph().convert("L")).astype(np.uint16) * 257)[:20, :30]
    buffer = io.BytesIO()
    if kind == "NPY":
        np.save(buffer, np.dstack([image] * 5))
    elif kind == "TIFF":
        tifffile = pytest.importorskip("tifffile")
        with tifffile.TiffWriter(buffer) as writer:
            for channel in range(4):
                writer.write(image + channel, photometric="minisblack", compression="zlib", contiguous=False)
    else:
        Image.fromarray(image).save(buffer, format=kind)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    ret = Image.Exif()
    ret[0x0112] = orientation
    return ret


def interlaced() -> bytes:
    """An 8-bit gray PNG with Adam7, of one row of one pixel, which PIL cannot write."""
    chunks = b"\x89PNG\r\n\x1a\n"
    for name, content in (
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 1)),
        (b"IDAT", zlib.compress(b"\0\x7f")),
        (b"IEND", b""),
    ):
        chunks += (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )
    return chunks


def make_seeds() -> dict[str, bytes]:
    frames = [Image.new("P", (12, 9), color) for color in (1, 2)]
    seeds = {
        "baseline.jpg": saved("RGB", "JPEG", exif=exif(6)),
        "progressive.jpg": saved("RGB", "JPEG", progressive=True),
        "cmyk.jpg": saved("CMYK", "JPEG"),
        "rgb.png": saved("RGB", "PNG", exif=exif(5)),
        "palette.png": saved("P", "PNG", transparency=1),
        "alpha.png": saved("LA", "PNG"),
        "deep.png": deep("PNG"),
        "interlaced.png": interlaced(),
        "rgb.bmp": saved("RGB", "BMP"),
        "palette.bmp": saved("P", "BMP"),
        "rgb.tif": saved("RGB", "TIFF"),
        "lzw.tif": saved("RGB", "TIFF", compression="tiff_lzw"),
        "pages.tif": deep("TIFF"),
        "animated.gif": saved("P", "GIF", save_all=True, append_images=frames),
        "gray.ppm": saved("L", "PPM"),
        "deep.npy": deep("NPY"),
        "noise.png": bytes(range(256)) * 4,
    }
    if features.check("webp"):
        seeds["lossy.webp"] = saved("RGB", "WEBP", exif=exif(8))
        seeds["lossless.webp"] = saved("RGBA", "WEBP", lossless=True)
    return seeds


SEEDS = make_seeds()
SUFFIXES = (".jpg", ".png", ".bmp", ".tif", ".gif", ".npy", ".webp", ".PNG", ".tiff", "")
HUGE = [
    struct.pack(order + kind, value) for order in "<>" for kind, value in (("I", 60_000), ("I", 2**31 - 1))
]
NUMBERS = [bytes(4), b"\xff\xff\xff\xff", b"\xff\xff", bytes(2), b"\x01", *HUGE]


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    """A suffix and what the file holds."""
    name = draw(st.sampled_from(sorted(SEEDS)))
    content = bytearray(SEEDS[name])
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(content)) | st.integers(0, 64))
        kind = draw(
            st.sampled_from(["flip", "number", "cut", "insert", "remove", "splice", "repeat", "zeros"])
        )
        length = draw(st.integers(1, 64))
        if kind == "flip" and place < len(content):
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "number":
            number = draw(st.sampled_from(NUMBERS))
            content[place : place + len(number)] = number
        elif kind == "cut":
            del content[place:]
        elif kind == "insert":
            content[place:place] = draw(st.binary(max_size=64))
        elif kind == "remove":
            del content[place : place + length]
        elif kind == "splice":
            content[place:] = SEEDS[draw(st.sampled_from(sorted(SEEDS)))][place:]
        elif kind == "repeat":
            content[place:place] = content[place : place + length] * 3
        elif kind == "zeros":
            content[place : place + length] = bytes(length)
    if draw(st.booleans()):
        repair_checksums(content)
    suffix = Path(name).suffix if draw(st.integers(0, 4)) else draw(st.sampled_from(SUFFIXES))
    return suffix, bytes(content)


def repair_checksums(png: bytearray) -> None:
    """So that what is in a chunk of a PNG is looked at, and not refused for its checksum."""
    place = 8
    while png.startswith(b"\x89PNG\r\n\x1a\n") and place + 12 <= len(png):
        end = place + 8 + struct.unpack(">I", png[place : place + 4])[0]
        if end + 4 > len(png):
            return
        png[end : end + 4] = struct.pack(">I", zlib.crc32(png[place + 4 : end]))
        place = end + 4


def check(folder: Path, suffix: str, content: bytes) -> int:
    """Read as BGR and RAW; how often there was an image."""
    path = folder / f"image{suffix}"
    path.write_bytes(content)
    images = 0
    for image_format in ("BGR", "RAW"):
        try:
            with alarm():
                image = read_image(str(path), image_format)
        except UserError as error:
            assert str(error).isprintable() and str(path) in str(error)
            continue
        images += 1
        height, width, channels = image.shape
        assert height > 0 and width > 0 and channels > 0 and height * width <= MAX_PIXELS
        if image_format == "BGR" or (image.dtype == np.uint8 and channels in (1, 3)):
            assert image.dtype == np.uint8
            assert image_format == "RAW" or channels == 3
        else:
            assert image.dtype == np.float32 and np.isfinite(image).all()
    return images


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_as_they_are_the_files_can_be_read(folder, name):
    only_raw = name in ("deep.png", "pages.tif", "deep.npy")
    only_bgr = name in ("palette.png", "palette.bmp", "animated.gif", "lzw.tif")  # RAW LZW needs imagecodecs
    expected = 0 if name == "noise.png" else 1 if only_raw or only_bgr else 2
    assert check(folder, Path(name).suffix, SEEDS[name]) == expected


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_cut_off_anywhere(folder, name):
    content = SEEDS[name]
    for length in {*range(64), *range(64, len(content), max(1, len(content) // 40))}:
        check(folder, Path(name).suffix, content[:length])


@settings(
    max_examples=2500,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(mutated())
@example(("", b""))
@example((".tif", b"II*\0\x08\0\0\0" + b"\0\0\x08\0\0\0"))
def test_mutated_files_are_images_or_one_line(folder, file):
    check(folder, *file)
