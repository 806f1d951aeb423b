"""A few steps of the toy model: what is measured, what the model sees, and that nothing is left behind."""

import json
import statistics
from pathlib import Path

import pytest
import torch

from rethink_pretrain.engine import probe as module
from rethink_pretrain.engine.probe import RandomImages, own_images, probe
from rethink_pretrain.engine.train_loop import TrainLoop
from rethink_pretrain.errors import UserError


@pytest.fixture
def times(monkeypatch) -> list[float]:
    """What each step is made to take, in seconds: the first two are slow."""
    times = [50.0, 40.0, 3.0, 1.0, 2.0]
    steps = iter(times)
    real = module._time_step
    monkeypatch.setattr(module, "_time_step", lambda loop, device: (real(loop, device), next(steps))[1])
    return times


def test_the_median_leaves_the_warm_up_out(short_cfg, times, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short_cfg.OUTPUT_DIR = str(tmp_path / "run")
    result = probe(short_cfg, RandomImages(short_cfg, 1, (64, 64), 2), 1, warmup=2, steps=3)
    assert result.seconds == statistics.median(times[2:]) == 2.0
    assert (result.steps, result.batch, result.unit) == (3, 1, "CPU")
    assert result.device.startswith("the CPU") and result.data == "random images of 64 x 64 px"
    assert not list(tmp_path.iterdir())


def test_one_step_is_measured_whatever_it_takes(short_cfg, times):
    result = probe(short_cfg, RandomImages(short_cfg, 1, (64, 64), 1), 1, warmup=2, steps=3, limit=0.0)
    assert (result.seconds, result.steps) == (40.0, 1)


def test_a_step_is_a_training_step(short_cfg, monkeypatch):
    """Its losses are those of a real one, finite, and all parameters have gradients."""
    loops = []
    real = TrainLoop.run_step
    monkeypatch.setattr(TrainLoop, "run_step", lambda loop: (loops.append(loop), real(loop))[1])
    result = probe(short_cfg, RandomImages(short_cfg, 2, (64, 96), 3), 2, warmup=0, steps=1)
    assert result.seconds > 0
    (loop,) = loops
    assert loop.samples == 2 and loop.exposure == (2, 6, 2 * 64 * 96)
    assert all(
        p.grad is not None and p.grad.isfinite().all() for p in loop.model.parameters() if p.requires_grad
    )


def test_auto_is_settled_as_in_training(short_cfg, monkeypatch):
    """Precision and memory format, which make the time of a step."""
    loops = []
    real = TrainLoop.run_step
    monkeypatch.setattr(TrainLoop, "run_step", lambda loop: (loops.append(loop), real(loop))[1])
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    short_cfg.RETHINK.SPEED.PRECISION = "auto"
    short_cfg.RETHINK.SPEED.MEMORY_FORMAT = "channels_last"
    probe(short_cfg, RandomImages(short_cfg, 1, (64, 96), 3), 1, warmup=0, steps=1)
    weight = next(p for p in loops[0].model.parameters() if p.dim() == 4 and p.shape[2] > 1)
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_random_images_are_those_of_the_mapper(short_cfg):
    batch = next(iter(RandomImages(short_cfg, 3, (40, 80), 5)))
    assert len(batch) == 3 and not torch.equal(batch[0]["image"], batch[1]["image"])
    for record in batch:
        assert record["image"].shape == (3, 40, 80) and record["image"].dtype == torch.uint8
        boxes = record["instances"].gt_boxes
        assert len(boxes) == 5 and boxes.inside_box((40, 80)).all() and boxes.nonempty(1).all()
        areas = torch.as_tensor(record["instances"].gt_masks.area(), dtype=torch.float32)
        torch.testing.assert_close(areas, boxes.area())


def test_random_images_have_no_keypoints(short_cfg):
    short_cfg.MODEL.KEYPOINT_ON = True
    with pytest.raises(UserError, match="give --train-images"):
        RandomImages(short_cfg, 1, (64, 64), 1)


def test_own_images_leave_nothing_behind(short_cfg, datasets, monkeypatch):
    """A sample of 5 of the 24, as training maps them; neither the data's folder nor OUTPUT_DIR is touched."""
    monkeypatch.setattr(module, "SAMPLE", 5)
    toy = datasets / "toy"
    document = json.loads((toy / "train.json").read_text())
    before, output = sorted(toy.rglob("*")), Path(short_cfg.OUTPUT_DIR)
    with own_images(short_cfg, document, toy / "train", 2) as (cfg, loader):
        folder = Path(cfg.OUTPUT_DIR)
        assert folder != output and len(loader.dataset) == 5
        result = probe(cfg, loader, 2, warmup=0, steps=2)
    assert result.data == "5 of your images" and result.steps == 2
    assert sorted(toy.rglob("*")) == before and not folder.exists() and not output.exists()
    assert Path(short_cfg.OUTPUT_DIR) == output


def test_too_little_memory_is_one_line(short_cfg, monkeypatch):
    def fail(loop, device):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(module, "_time_step", fail)
    with pytest.raises(UserError, match="memory does not suffice for 2 images: lower --images-per-gpu"):
        probe(short_cfg, RandomImages(short_cfg, 2, (64, 64), 1), 2)
