"""Image files that would do harm: all are refused in one line, before they have cost anything."""

import lzma
import os
import resource
import socket
import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image
from test_images import KINDS, photograph, random_image, write

from rethink_pretrain.data import images
from rethink_pretrain.data.images import RawOnly, read_image
from rethink_pretrain.errors import UserError


def png(width: int, height: int, rows: bytes) -> bytes:
    """An RGB image that says to be of that size; each row begins with a byte for its filter."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    ret = b"\x89PNG\r\n\x1a\n"
    for name, content in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        checksum = zlib.crc32(name + content)
        ret += struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)
    return ret


def npy_header(shape: tuple[int, ...]) -> bytes:
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}}}".ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def tiff_of(folder, width: int, height: int) -> bytes:
    """A small TIFF that says to be of another size."""
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(folder / "small.tif", random_image(1, np.uint8))
    with tifffile.TiffFile(folder / "small.tif", mode="r+") as tiff:
        for tag, size in (("ImageWidth", width), ("ImageLength", height)):
            tiff.pages[0].tags[tag].overwrite(size, dtype="I")
    return (folder / "small.tif").read_bytes()


@pytest.mark.parametrize(
    ("suffix", "image_format"),
    [
        *((suffix, "BGR") for suffix in (".png", ".gif", ".bmp", ".tif", ".ppm")),
        (".npy", "RAW"),
        (".tif", "RAW"),
    ],
)
def test_a_bomb_is_refused_by_its_header(tmp_path, suffix, image_format):
    side = 60_000
    content = {
        ".png": png(side, side, bytes(100)),
        ".gif": b"GIF89a" + struct.pack("<HH", side, side) + b"\0\0\0," + bytes(4) + b"\1\0\1\0\0\2\1\0\0;",
        ".bmp": b"BM" + struct.pack("<IIIIiiHHIIiiII", 154, 0, 54, 40, side, side, 1, 24, 0, *[0] * 5),
        ".tif": tiff_of(tmp_path, side, side),
        ".npy": npy_header((side, side)),
        ".ppm": f"P6 {side} {side} 255\n".encode() + bytes(100),
    }[suffix]
    path = tmp_path / f"image{suffix}"
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"RETHINK\.MAX_IMAGE_PIXELS 100000000"):
        read_image(str(path), image_format)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 100_000  # KiB


def test_a_real_bomb_is_refused_and_read_where_the_limit_is_raised(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    path.write_bytes(png(3000, 2000, bytes((1 + 3 * 3000) * 2000)))
    with pytest.raises(UserError, match="MAX_IMAGE_PIXELS 5999999"):
        read_image(str(path), "BGR", max_pixels=5_999_999)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # PIL's own
    assert read_image(str(path), "BGR", max_pixels=6_000_000).shape == (2000, 3000, 3)
    assert Image.MAX_IMAGE_PIXELS == 1000


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_many_channels_count_as_pixels(tmp_path, suffix):
    path = write(tmp_path, random_image(9, np.uint8), suffix)
    assert read_image(path, "RAW", max_pixels=79).shape == (5, 7, 9)
    with pytest.raises(UserError, match="MAX_IMAGE_PIXELS 78"):
        read_image(path, "RAW", max_pixels=78)


def test_an_array_that_ends_too_early_is_refused_before_it_is_allocated(tmp_path):
    path = tmp_path / "image.npy"
    path.write_bytes(npy_header((9_000, 9_000)) + bytes(100))
    with pytest.raises(UserError, match="ends before its last value"):
        read_image(str(path), "RAW")


@pytest.mark.parametrize("kind", ["png", "pgm", "tif", "float"])
def test_more_than_8_bits_are_not_cut_off(tmp_path, kind):
    path = str(tmp_path / f"image.{'tif' if kind == 'float' else kind}")
    image = random_image(1, np.uint16)[:, :, 0]
    Image.fromarray(image.astype(np.float32) if kind == "float" else image).save(path)
    for image_format in ("BGR", "RGB", "L"):
        with pytest.raises(RawOnly, match=r'INPUT\.FORMAT "RAW"'):
            read_image(path, image_format)


def test_ghostscript_is_not_started(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *arguments, **options: started.append(arguments))
    monkeypatch.setattr(os, "system", started.append)
    path = tmp_path / "image.jpg"
    photograph().save(path, format="EPS")
    for image_format in ("BGR", "RAW"):
        with pytest.raises(UserError, match="none of the formats"):
            read_image(str(path), image_format)
    assert not started


@pytest.mark.parametrize("scheme", ["http", "https", "detectron2", "file", "s3"])
def test_nothing_is_fetched(monkeypatch, scheme):
    connections = []
    monkeypatch.setattr(socket, "socket", lambda *arguments, **options: connections.append(arguments))
    for name in ("image.png", "image.npy"):
        with pytest.raises(UserError, match="no addresses"):
            read_image(f"{scheme}://localhost/{name}", "RAW")
    assert not connections


@pytest.mark.parametrize("image_format", ["BGR", "RAW"])
def test_what_is_no_file_is_refused_at_once(tmp_path, image_format):
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for a writer
    for path in (tmp_path / "pipe.jpg", tmp_path):
        with pytest.raises(UserError, match="not a file"):
            read_image(str(path), image_format)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".npy", ".tif"])
def test_an_empty_file_is_named_as_such(tmp_path, suffix):
    (tmp_path / f"image{suffix}").touch()
    with pytest.raises(UserError, match=r"Cannot read .*image.*: the file is empty"):
        read_image(str(tmp_path / f"image{suffix}"), "RAW")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path):
    path = write(tmp_path, random_image(3, np.uint8), ".png")
    os.chmod(path, 0)
    with pytest.raises(UserError, match="Permission denied"):
        read_image(path, "BGR")


@pytest.mark.parametrize("name", ["baseline.jpg", "rgb.png", "rgb.bmp", "lzw.tif", "palette.gif"])
def test_a_truncated_file_is_refused(tmp_path, name):
    mode, arguments = KINDS[name]
    path = tmp_path / name
    photograph().convert(mode).save(path, **arguments)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=f"Cannot read .*{name}"):
        read_image(str(path), "BGR")


def test_names_cannot_break_the_line(tmp_path):
    path = tmp_path / "a\nb\x1b[31m.png"
    path.write_bytes(b"no image")
    with pytest.raises(UserError) as error:
        read_image(str(path), "BGR")
    assert str(error.value).isprintable() and "a b [31m.png" in str(error.value)


@pytest.mark.parametrize(
    "error",
    [SyntaxError, struct.error, zlib.error, MemoryError, KeyError, IndexError, RecursionError, EOFError],
)
@pytest.mark.parametrize("image_format", ["BGR", "RAW"])
def test_every_error_of_a_decoder_is_the_users(tmp_path, monkeypatch, error, image_format):
    def fail(*arguments, **options):
        raise error("broken \n")

    path = write(tmp_path, random_image(3, np.uint8), ".png")
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UserError, match=r"Cannot read .*image\.png: .*broken") as caught:
        read_image(path, image_format)
    assert "\n" not in str(caught.value)


def test_an_interrupt_is_none_of_them(tmp_path, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    path = write(tmp_path, random_image(3, np.uint8), ".png")
    monkeypatch.setattr(Image, "open", interrupt)
    with pytest.raises(KeyboardInterrupt):
        read_image(path, "BGR")


def test_pages_in_a_loop_are_refused(tmp_path):
    """tifffile itself finds loops of less than 100 pages only."""
    pytest.importorskip("tifffile")
    pages = [struct.pack("<HI", 0, 8 + 6 * ((number + 1) % 300)) for number in range(300)]
    path = tmp_path / "image.tif"
    path.write_bytes(b"II*\0\x08\0\0\0" + b"".join(pages))
    with pytest.raises(UserError, match="loop"):
        read_image(str(path), "RAW")


def test_a_reason_is_short_though_the_file_is_quoted_in_it(tmp_path):
    header = b"x" * 9_000 + b"\n"
    path = tmp_path / "image.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header)
    with pytest.raises(UserError, match="Cannot read") as error:
        read_image(str(path), "RAW")
    assert len(str(error.value)) < 300 + len(str(path))


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pages_of_every_kind_of_tiff_are_followed(tmp_path, big, order):
    tifffile = pytest.importorskip("tifffile")
    image = random_image(3, np.uint16)
    with tifffile.TiffWriter(tmp_path / "image.tif", bigtiff=big, byteorder=order) as writer:
        for channel in range(3):
            writer.write(image[:, :, channel], photometric="minisblack", contiguous=True)
    np.testing.assert_array_equal(read_image(str(tmp_path / "image.tif"), "RAW"), image)


def test_a_tiff_reads_no_other_file(tmp_path):
    """OME-TIFF may name files that hold further planes."""
    tifffile = pytest.importorskip("tifffile")
    own, other = random_image(2, np.uint8, seed=1), random_image(2, np.uint8, seed=2)
    names = tmp_path / "own.ome.tif", tmp_path / "other.ome.tif"
    plane = '<TiffData IFD="0" FirstC="{}" PlaneCount="1"><UUID FileName="{}">urn:uuid:{}</UUID></TiffData>'
    text = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0">'
        '<Image ID="Image:0"><Pixels DimensionOrder="XYCZT" ID="Pixels:0" SizeX="7" SizeY="5" SizeC="2" '
        'SizeZ="1" SizeT="1" Type="uint8"><Channel ID="C:0"/><Channel ID="C:1"/>'
        + "".join(plane.format(number, path.name, number) for number, path in enumerate(names))
        + "</Pixels></Image></OME>"
    )
    for path, image in zip(names, (own, other), strict=True):
        tifffile.imwrite(path, image[:, :, 0], description=text, metadata=None)
    assert tifffile.imread(names[0]).shape == (2, 5, 7)  # so it does by itself
    np.testing.assert_array_equal(read_image(str(names[0]), "RAW"), own[:, :, :1])


@pytest.mark.parametrize("pack", [zlib.compress, lzma.compress])
def test_a_tiff_with_a_bomb_inside(tmp_path, monkeypatch, pack):
    """A header of 64 x 64 pixels, in front of a megabyte in a thousand bytes."""
    tifffile = pytest.importorskip("tifffile")
    monkeypatch.setattr(images, "_MAX_UNPACKED", 1000)
    path, image = tmp_path / "image.tif", np.zeros((64, 64), np.uint8)
    tifffile.imwrite(path, image, compression="zlib" if pack is zlib.compress else "lzma")
    assert read_image(str(path), "RAW").shape == (64, 64, 1)
    bomb = pack(bytes(2**20))
    start = path.stat().st_size
    with path.open("ab") as file:
        file.write(bomb)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["StripOffsets"].overwrite(start)
        tiff.pages[0].tags["StripByteCounts"].overwrite(len(bomb))
    with pytest.raises(UserError, match="unpacks to more"):
        read_image(str(path), "RAW")


def test_packed_pages_and_tiles_are_read_whole(tmp_path, monkeypatch):
    tifffile = pytest.importorskip("tifffile")
    monkeypatch.setattr(images, "_MAX_UNPACKED", 0)  # all are unpacked to try
    image = np.random.default_rng(0).integers(0, 2**16, (70, 90, 3), dtype=np.uint16)
    for arguments in ({"tile": (32, 48)}, {"rowsperstrip": 13}, {"planarconfig": "separate"}, {}):
        stored = image.transpose(2, 0, 1) if "planarconfig" in arguments else image
        arguments = {"photometric": "rgb", "compression": "zlib", "predictor": True, **arguments}
        tifffile.imwrite(tmp_path / "image.tif", stored, **arguments)
        np.testing.assert_array_equal(read_image(str(tmp_path / "image.tif"), "RAW"), image)
    with tifffile.TiffWriter(tmp_path / "pages.tif") as writer:
        for channel in range(3):
            writer.write(image[:, :, channel], photometric="minisblack", compression="zlib", metadata=None)
    np.testing.assert_array_equal(read_image(str(tmp_path / "pages.tif"), "RAW"), image)


def test_values_beyond_float32_are_refused(tmp_path):
    np.save(tmp_path / "image.npy", np.full((4, 4), 1e300))
    with pytest.raises(UserError, match="infinite"):
        read_image(str(tmp_path / "image.npy"), "RAW")
