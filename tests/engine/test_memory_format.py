"""Both memory formats compute the same, and a run keeps the one that it began with."""

import pytest
import torch
from detectron2.utils.events import EventStorage

from rethink_pretrain.engine import Trainer, memory_format, train
from rethink_pretrain.engine.memory_format import choose_memory_format, keep_memory_format


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
