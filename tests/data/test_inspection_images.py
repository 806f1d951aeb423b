"""What is found in files, each made broken or odd in one way."""

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_defects import ALSO, HEIGHT, IN_FILES, WIDTH, make_document, write_images
from PIL import Image

from rethink_pretrain.data import images
from rethink_pretrain.data.images import read_image
from rethink_pretrain.data.inspection import (
    ERRORS,
    Report,
    check_document,
    check_images,
    examine_file,
    image_files,
    repair,
)
from rethink_pretrain.errors import UserError


def inspect(document: dict, folder: Path, **limits) -> tuple[Report, dict]:
    report = Report()
    check_document(document, folder, report)
    return report, check_images(document, folder, report, **limits)


@pytest.fixture
def document(tmp_path):
    document = make_document()
    write_images(document, tmp_path)
    return document


def test_a_sound_set_has_no_problem(document, tmp_path):
    report, files = inspect(document, tmp_path)
    assert report.counts == {} and {file.size for file in files.values()} == {(WIDTH, HEIGHT)}


@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.parametrize("kind", IN_FILES)
def test_counted_exactly_and_nothing_else(document, tmp_path, kind, num_workers):
    number = IN_FILES[kind](document, tmp_path)
    report, _ = inspect(document, tmp_path, num_workers=num_workers)
    assert report.counts == {kind: number, **ALSO.get(kind, {})}


@pytest.mark.parametrize("kind", IN_FILES)
def test_repaired_without_errors(document, tmp_path, kind):
    IN_FILES[kind](document, tmp_path)
    _, files = inspect(document, tmp_path)
    repaired = repair(document, tmp_path, files).document
    report, files = inspect(repaired, tmp_path)
    assert report.num_errors == 0
    assert repair(repaired, tmp_path, files).document == repaired
    if kind not in ERRORS:
        assert repaired == document


def test_the_true_size_is_taken_and_objects_beyond_it_go(document, tmp_path):
    IN_FILES["image-size-differs"](document, tmp_path)  # 20 x 30 px
    _, files = inspect(document, tmp_path)
    document["annotations"][0].update(bbox=[25, 3, 8, 5], segmentation=[[25, 3, 33, 3, 33, 8, 25, 8]])
    repaired = repair(document, tmp_path, files)
    assert repaired.document["images"][0]["width"] == WIDTH // 2
    assert repaired.mended == {"image-size-differs": 1}
    assert repaired.dropped == {("annotations", "box-outside"): 1}


def test_training_reads_what_has_no_error_and_nothing_else(document, tmp_path):
    """The 8-bit reading of files without findings, and of those with an error."""
    for kind in ("image-unreadable", "image-format", "image-alpha", "image-frames", "image-huge"):
        folder = tmp_path / kind
        folder.mkdir()
        write_images(made := make_document(), folder)
        IN_FILES[kind](made, folder)
        for image in made["images"]:
            path = folder / image["file_name"]
            found = {problem for problem, _ in examine_file(path).problems}
            if found & ERRORS:
                with pytest.raises(UserError):
                    read_image(str(path), "RAW" if path.suffix == ".npy" else "BGR")
            else:
                assert read_image(str(path), "BGR").shape == (HEIGHT, WIDTH, 3)


def encode(suffix: str) -> bytes:
    """A picture as a file, with structure for a coder to work on."""
    stream = io.BytesIO()
    ramp = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH))[:, :, None] * np.array([1, 2, 3])
    image = Image.fromarray(ramp.astype(np.uint8))
    image.save(stream, format=Image.registered_extensions()[suffix])
    return stream.getvalue()


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(
    suffix=st.sampled_from([".jpg", ".png", ".bmp", ".tif", ".webp", ".gif", ".ppm"]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
    kept=st.floats(0.05, 1) | st.just(1.0),
)
def test_whatever_is_in_a_file_training_agrees(tmp_path_factory, suffix, changes, kept):
    data = bytearray(encode(suffix))
    for place, value in changes:
        data[min(int(place * place * len(data)), len(data) - 1)] = value  # headers more often
    path = tmp_path_factory.getbasetemp() / f"mutated{suffix}"
    path.write_bytes(data[: max(1, int(kept * len(data)))])
    kinds = {kind for kind, _ in examine_file(path, 1_000_000).problems}
    try:
        read_image(str(path), "BGR", max_pixels=1_000_000)
        is_read = True
    except UserError:
        is_read = False
    assert is_read == (not kinds & {*ERRORS, "image-raw-only"}) or "image-16-bit" in kinds


def test_the_formats_are_those_of_training():
    assert set(image_files._FORMATS) == set(images._FORMATS)


def test_a_header_is_believed_before_anything_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    Image.new("1", (4000, 3000)).save(path)
    assert examine_file(path, 12_000_000).problems == ()
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert dict(examine_file(path, 11_999_999).problems) == {"image-huge": "4000 x 3000"}


def test_pillows_own_limit_comes_back(document, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 123)
    inspect(document, tmp_path, max_pixels=WIDTH * HEIGHT)
    assert Image.MAX_IMAGE_PIXELS == 123


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    found = []
    thread = threading.Thread(target=lambda: found.append(examine_file(tmp_path / "pipe.jpg")), daemon=True)
    thread.start()
    thread.join(20)
    assert found and dict(found[0].problems) == {"image-unreadable": "it is no regular file"}


def test_files_outside_the_folder_are_never_opened(document, tmp_path, monkeypatch):
    folder = tmp_path / "inside"
    folder.mkdir()
    write_images(document, folder)
    (folder / "link.jpg").symlink_to(tmp_path / document["images"][0]["file_name"])
    document["images"][0]["file_name"] = f"../{document['images'][0]['file_name']}"
    document["images"][1]["file_name"] = "link.jpg"
    report, files = inspect(document, folder)
    assert report.counts == {"file-name-unsafe": 2}
    assert set(files) == {image["file_name"] for image in document["images"][2:]}


def test_tiffs_of_many_channels(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "five.tif"
    tifffile.imwrite(
        path, np.ones((HEIGHT, WIDTH, 5), np.uint16), photometric="minisblack", planarconfig="contig"
    )
    found = examine_file(path)
    assert found.size == (WIDTH, HEIGHT) and dict(found.problems) == {
        "image-raw-only": "5 channels of uint16"
    }


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_training(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    for suffix in (".jpg", ".tif", ".png"):
        path = tmp_path / f"a{suffix}"
        Image.new("RGB", (WIDTH, HEIGHT)).save(path, exif=exif)
        height, width, _ = read_image(str(path), "BGR").shape
        found = examine_file(path)
        assert found.size == (width, height) and found.rotated == (orientation > 4)
        assert bool(found.problems) == (orientation > 1)
