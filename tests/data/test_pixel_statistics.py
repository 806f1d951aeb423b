"""Pixel statistics against NumPy on all pixels at once."""

import json

import numpy as np
import pytest
from PIL import Image

from rethink_pretrain.data.pixel_statistics import (
    PixelMoments,
    list_images_of_dataset,
    list_images_of_json,
    measure_pixels,
    sample_files,
)
from rethink_pretrain.errors import UserError


def test_moments_match_numpy_on_all_pixels_at_once():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 65536, (height, 11, 5)) for height in (3, 50, 7)]
    moments = PixelMoments(5)
    for image in images:
        moments.add(image.astype(np.uint16))
    pixels = np.concatenate([image.reshape(-1, 5) for image in images])
    np.testing.assert_allclose(moments.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.std, pixels.std(0), rtol=1e-12)
    assert moments.count == 60 * 11


def test_small_spread_on_a_large_offset():
    """A sum of squares would lose it: 1e9^2 has no room for 0.25 in float64."""
    moments = PixelMoments(1)
    for value in (1e9, 1e9 + 1):
        moments.add(np.full((4, 4, 1), value))
    assert moments.std == pytest.approx(0.5)


@pytest.mark.parametrize("image_format", ["BGR", "RGB", "RAW"])
def test_order_of_the_channels_is_the_formats(tmp_path, image_format):
    image = np.zeros((4, 4, 3), np.uint8)
    image[:] = [10, 20, 30]
    image[:2, :, 0] = 0
    Image.fromarray(image).save(tmp_path / "a.png")
    result = measure_pixels([str(tmp_path / "a.png")], image_format)
    order = slice(None, None, -1) if image_format == "BGR" else slice(None)
    assert result.mean == (5.0, 20.0, 30.0)[order]
    assert result.std == (5.0, 0.0, 0.0)[order]
    assert (result.num_images, result.num_pixels, result.types) == (1, 16, ("uint8",))


def test_pixels_weigh_the_same_in_images_of_any_size(tmp_path):
    for name, size, value in (("a.npy", 1, 0), ("b.npy", 3, 100)):
        np.save(tmp_path / name, np.full((size, size, 4), value, np.uint16))
    result = measure_pixels((str(tmp_path / name) for name in ("a.npy", "b.npy")), "RAW")
    assert result.mean == pytest.approx((90.0,) * 4)  # 9 of 10 pixels
    assert result.std == pytest.approx((30.0,) * 4)  # sqrt(0.9 * 0.1) * 100
    assert result.num_images == 2


def test_bit_depths_are_told(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 2, 5), np.uint8))
    np.save(tmp_path / "b.npy", np.zeros((2, 2, 5), np.uint16))
    files = [str(tmp_path / name) for name in ("a.npy", "b.npy")]
    assert measure_pixels(files, "RAW").types == ("uint16", "uint8")


def test_numbers_of_channels_may_not_differ(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 2, 5)))
    np.save(tmp_path / "b.npy", np.zeros((2, 2, 4)))
    with pytest.raises(UserError, match=r"b\.npy: 4 channels.*have 5"):
        measure_pixels([str(tmp_path / name) for name in ("a.npy", "b.npy")], "RAW")


def test_nothing_to_measure():
    with pytest.raises(UserError, match="no images"):
        measure_pixels([], "BGR")


def test_sample_depends_on_ids_and_seed_only():
    files = {index: f"{index}.png" for index in range(100)}
    shuffled = dict(sorted(files.items(), key=lambda item: -item[0]))
    first = sample_files(files, 10, seed=0)
    assert first == sample_files(shuffled, 10, seed=0)
    assert first != sample_files(files, 10, seed=1)
    assert len(set(first)) == 10
    assert sample_files(files, 1000, seed=0) == list(files.values())


def test_sample_of_none_is_an_error():
    with pytest.raises(UserError, match="1 or more, not 0"):
        sample_files({1: "a"}, 0, seed=0)


def test_images_of_a_json(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"images": [{"id": 3, "file_name": "x/y.png"}]}))
    assert list_images_of_json(path, "root") == {3: "root/x/y.png"}


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"images": [{"id": 1}]}', '{"images": 3}'])
def test_json_of_another_format_is_the_users_error(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match="COCO's format"):
        list_images_of_json(tmp_path / "a.json", "root")


def test_absent_json_is_the_users_error(tmp_path):
    with pytest.raises(UserError, match="Cannot read"):
        list_images_of_json(tmp_path / "a.json", "root")


def test_images_of_a_registered_set(datasets):
    files = list_images_of_dataset("toy_train")
    assert len(files) == 24
    assert all(path.startswith(str(datasets)) for path in files.values())
    assert len(list_images_of_dataset("toy_train@5")) == 5
    assert sorted(list_images_of_dataset("toy_train_stuff").values()) == sorted(files.values())
    with pytest.raises(UserError, match="Unknown data set"):
        list_images_of_dataset("none")
