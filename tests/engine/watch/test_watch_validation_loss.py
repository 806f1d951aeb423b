"""Losses on validation images, next to the model's own forward pass; and that training does not notice."""

import random

import numpy as np
import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from torch import nn
from watch_loop import Loop

from rethink_pretrain.engine import Trainer
from rethink_pretrain.engine.watch.validation_loss import (
    ValidationLoss,
    build_loader,
    preserved_generators,
    sum_losses,
)


class Toy(nn.Module):
    """loss_mean is the input's, loss_norm that of what BatchNorm makes of it, loss_random is drawn."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(1)
        self.norm.running_mean[:] = 1.0
        self.norm.running_var[:] = 4.0 - self.norm.eps
        self.calls = 0

    def forward(self, batch):
        assert self.training and not torch.is_grad_enabled()
        self.calls += 1
        x = torch.tensor([[batch[0]]])
        return {"loss_mean": x.mean(), "loss_norm": self.norm(x).sum(), "loss_random": torch.rand(())}


def test_sums_by_hand():
    model = Toy().eval()
    state = torch.get_rng_state()
    sums, count = sum_losses(model, [[3.0], [5.0]], 0)
    assert count == 2 and sums["loss_mean"] == 8.0
    assert sums["loss_norm"] == pytest.approx((3 - 1) / 2 + (5 - 1) / 2)
    assert sums == sum_losses(model, [[3.0], [5.0]], 7)[0]  # the same draws each time
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training and model.calls == 0 and model.norm.running_mean.item() == 1.0


def test_means_at_evaluations(tmp_path):
    hook = ValidationLoss(lambda: [[3.0], [5.0]], eval_period=2)
    loop = Loop([{}, {}], [hook], tmp_path, model=Toy()).run()
    latest = loop.storage.latest()
    assert latest["val_loss/loss_mean"] == (4.0, 4) and latest["val_loss/loss_norm"] == (1.5, 4)
    parts = [latest[f"val_loss/loss_{name}"][0] for name in ("mean", "norm", "random")]
    assert latest["val_loss/total_loss"][0] == pytest.approx(sum(parts))
    assert [at for _, at in loop.storage.history("val_loss/total_loss").values()] == [1, 4]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_precision_of_training(tmp_path, precision):
    seen = []

    class Spy(Toy):
        def forward(self, batch):
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().forward(batch)

    hook = ValidationLoss(lambda: [[3.0]], eval_period=0, precision=precision)
    Loop([{}], [hook], tmp_path, model=Spy()).run()
    assert seen == [precision == "bf16"]


def test_images_of_all_processes_weigh_the_same(tmp_path, monkeypatch):
    """Another process had two images, losses 10 in all."""

    def others(sums, each):
        return type(sums)(dict.fromkeys(sums, 2 * each))

    hook = ValidationLoss(lambda: [[2.0]], eval_period=0)
    monkeypatch.setattr(comm, "all_gather", lambda mine: [mine, (others(mine[0], 5.0), 2)])
    loop = Loop([{}], [hook], tmp_path, model=Toy()).run()
    assert loop.storage.latest()["val_loss/loss_mean"][0] == pytest.approx((2 + 10) / 3)


def test_generators_stay_where_they_are():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    expected = draw(), draw()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    first = draw()
    with preserved_generators():
        draw()
    assert (first, draw()) == expected


def test_the_loader_gives_annotated_images_the_same_each_time(short_cfg, monkeypatch):
    load = build_loader(short_cfg, "toy_val", 5)
    batches, again = list(load()), list(load())
    assert [len(batch) for batch in batches] == [1] * 5
    assert sum(len(batch[0]["instances"]) for batch in batches) > 0
    for (one,), (other,) in zip(batches, again, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["instances"].gt_boxes.tensor, other["instances"].gt_boxes.tensor)
    shown = [batch[0]["image_id"] for batch in batches]
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    halves = []
    for rank in (0, 1):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        halves += [batch[0]["image_id"] for batch in build_loader(short_cfg, "toy_val", 5)()]
    assert sorted(halves) == sorted(shown)


def test_of_a_detector(short_cfg):
    """One image's losses are what the model itself says in train mode with that seed."""
    model = Trainer.build_model(short_cfg)
    load = build_loader(short_cfg, "toy_val", 1)
    sums, count = sum_losses(model, load(), 0)
    torch.manual_seed(0)
    with EventStorage(0), torch.no_grad():
        expected = model.train()(next(iter(load())))
    assert count == 1 and sums == {name: loss.item() for name, loss in expected.items()}
    assert {"loss_cls", "loss_mask", "loss_rpn_cls"} <= set(sums)


def test_training_is_the_same_with_and_without(short_cfg, tmp_path):
    """Bit for bit, with BatchNorm in the backbone."""
    short_cfg.MODEL.RESNETS.NORM = "BN"
    short_cfg.TEST.EVAL_PERIOD = 2
    states = []
    for name in ("with", "without"):
        short_cfg.OUTPUT_DIR = str(tmp_path / name)
        seed_all_rng(7)
        trainer = Trainer(short_cfg)
        if name == "with":
            trainer.register_hooks([ValidationLoss(build_loader(short_cfg, "toy_val", 3), 2)])
        trainer.resume_or_load(False)
        trainer.train()
        states.append(trainer.model.state_dict())
        assert ("val_loss/total_loss" in trainer.storage.latest()) == (name == "with")
    one, other = states
    assert any("running_mean" in key for key in one)
    assert all(torch.equal(one[key], other[key]) for key in one)
