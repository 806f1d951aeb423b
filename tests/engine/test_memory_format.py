"""Both memory formats compute the same, and a run keeps the one that it began with."""

from functools import partial
from unittest import mock

import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn
from two_processes import run_on_two_ranks

from rethink_pretrain.engine import Trainer, memory_format, train
from rethink_pretrain.engine.memory_format import (
    apply_memory_format,
    choose_memory_format,
    keep_memory_format,
)


def first_step(cfg, name: str) -> tuple[Trainer, dict[str, torch.Tensor]]:
    cfg.RETHINK.SPEED.MEMORY_FORMAT = name
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    with EventStorage(0):
        return trainer, trainer._trainer._backward(next(iter(trainer.data_loader)), 0)


def is_channels_last(weight: torch.Tensor) -> bool:
    return weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()


def test_channels_last_has_the_same_losses(short_cfg):
    _, expected = first_step(short_cfg, "contiguous")
    trainer, found = first_step(short_cfg, "channels_last")
    assert is_channels_last(trainer.model.backbone.fpn_output2.weight)
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, rtol=1e-3, atol=1e-4)


def test_the_faster_one_is_chosen_and_kept(short_cfg, monkeypatch):
    """A clock that says which is faster; the resumed run has a clock that says the opposite."""

    def clock(slow: bool):
        return lambda twin, shape, precision: 1.0 + slow * is_channels_last(twin.fpn_output2.weight)

    monkeypatch.setattr(memory_format, "_time_pass", clock(slow=False))
    backbone = Trainer.build_model(short_cfg).backbone
    assert choose_memory_format(backbone, (3, 64, 64), "fp32") == "contiguous"  # equals: the host's
    monkeypatch.setattr(memory_format, "_time_pass", lambda *args: -clock(slow=True)(*args))
    short_cfg.RETHINK.SPEED.MEMORY_FORMAT = "auto"
    assert keep_memory_format(short_cfg) is short_cfg  # nothing to keep yet
    train(short_cfg)
    monkeypatch.setattr(memory_format, "_time_pass", clock(slow=True))
    resumed = Trainer(keep_memory_format(short_cfg))
    assert resumed.cfg.RETHINK.SPEED.MEMORY_FORMAT == "channels_last"
    resumed.resume_or_load(True)
    assert is_channels_last(resumed.model.backbone.fpn_output2.weight)
    assert Trainer(short_cfg).cfg.RETHINK.SPEED.MEMORY_FORMAT == "contiguous"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_timing_leaves_the_backbone_as_it_was(short_cfg, precision):
    backbone = Trainer.build_model(short_cfg).backbone
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    state = torch.get_rng_state()
    assert choose_memory_format(backbone, (3, 64, 100), precision) in ("contiguous", "channels_last")
    assert torch.equal(torch.get_rng_state(), state) and backbone.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert all(p.grad is None and p.is_contiguous() for p in backbone.parameters())


def test_a_frozen_backbone(short_cfg):
    backbone = Trainer.build_model(short_cfg).backbone.requires_grad_(False)
    assert choose_memory_format(backbone, (3, 64, 64), "fp32") in ("contiguous", "channels_last")


def choose_as(rank: int, fast: tuple[str, str], cfg) -> tuple[str, bool]:
    """On a clock that finds fast[rank] faster: the format in the config, and whether weights are NHWC."""
    model = nn.Module()
    model.backbone = nn.Conv2d(3, 4, 3)

    def clock(twin, shape, precision):
        name = "channels_last" if is_channels_last(twin.weight) else "contiguous"
        return 1.0 if name == fast[rank] else 2.0

    with mock.patch.object(memory_format, "_time_pass", clock):
        cfg = apply_memory_format(cfg, model)
    return cfg.RETHINK.SPEED.MEMORY_FORMAT, is_channels_last(model.backbone.weight)


def choose_twice(cfg, rank: int) -> list[tuple[str, bool]]:
    formats = ("channels_last", "contiguous")
    return [choose_as(rank, fast, cfg) for fast in (formats, formats[::-1])]


def test_all_processes_get_the_choice_of_the_main_one(short_cfg, tmp_path):
    """Their clocks contradict each other."""
    short_cfg.RETHINK.SPEED.MEMORY_FORMAT = "auto"
    results = run_on_two_ranks(partial(choose_twice, short_cfg), tmp_path)
    comm._get_global_gloo_group.cache_clear()  # the host keeps a process's first group
    assert results == [[("channels_last", True), ("contiguous", False)]] * 2
