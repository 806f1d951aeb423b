"""The classifier's pictures: crops of the right size and place, draws that a seed decides."""

import numpy as np
import pytest
import torch
from PIL import Image

from rethink_pretrain.data.classification import ClassificationMapper
from rethink_pretrain.errors import UserError


def mapper(is_train, **keys):
    values = {"size": 32, "min_area": 0.5, "image_format": "BGR", "num_channels": 3} | keys
    return ClassificationMapper(is_train, **values)


@pytest.fixture
def record(tmp_path):
    """A picture of 80 x 60 px whose red rises with x and whose blue rises with y."""
    x, y = np.meshgrid(np.arange(80), np.arange(60))
    pixels = np.stack([3 * x, 0 * x, 4 * y], axis=2).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return {"file_name": str(tmp_path / "a.png"), "label": 3}


def test_the_middle_in_testing(record):
    """The short side of 60 px becomes 37 (32 / 0.875); of 49 x 37 px columns 8 to 40, rows 2 to 34 stay."""
    mapped = mapper(is_train=False)(record)
    assert mapped["image"].shape == (3, 32, 32) and mapped["image"].dtype == torch.uint8
    assert mapped["label"] == 3 and "image" not in record
    blue, green, red = mapped["image"].float()  # BGR
    assert red.mean().item() == pytest.approx(3 * (24 / 49 * 80 - 0.5), abs=1) and green.max() == 0
    assert blue.mean().item() == pytest.approx(4 * (18 / 37 * 60 - 0.5), abs=1)
    assert (red[:, -1] - red[:, 0]).mean().item() == pytest.approx(3 * 80 / 49 * 31, rel=0.05)


def test_crops_in_training(record):
    """Never less than the smallest share; flipped about half of the time; the same for the same seed."""
    train, flipped, shares = mapper(is_train=True, min_area=0.4), 0, []
    for seed in range(200):
        torch.manual_seed(seed)
        blue, _, red = train(record)["image"].float()
        width = (red[:, -1] - red[:, 0]).mean().item() / 3
        height = (blue[-1] - blue[0]).mean().item() / 4
        flipped += width < 0
        shares.append(abs(width) * height / (80 * 60) * (32 / 31) ** 2)
    assert 70 < flipped < 130
    assert min(shares) > 0.36 and max(shares) > 0.85
    torch.manual_seed(5)
    first = train(record)["image"]
    torch.manual_seed(5)
    assert torch.equal(first, train(record)["image"])


def test_a_file_that_is_no_picture(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"a\.jpg"):
        mapper(is_train=True)({"file_name": str(tmp_path / "a.jpg"), "label": 0})
