"""The training loader: what it yields, and that draws depend on the position alone."""

import itertools
import random

import numpy as np
import pytest
import torch

from rethink_pretrain.data import RethinkDatasetMapper, build_train_loader, micro_batch_size
from rethink_pretrain.errors import UserError


def take(cfg, number: int, position: int = 0) -> list[list[dict]]:
    loader = build_train_loader(cfg, RethinkDatasetMapper(cfg, is_train=True))
    loader.position = position
    return list(itertools.islice(loader, number))


def flatten(batches: list[list[dict]]) -> list[dict]:
    return [sample for batch in batches for sample in batch]


def assert_same(a: list[dict], b: list[dict]) -> None:
    assert [sample["image_id"] for sample in a] == [sample["image_id"] for sample in b]
    assert all(torch.equal(x["image"], y["image"]) for x, y in zip(a, b, strict=True))


def test_workers_do_not_change_what_is_seen(short_cfg):
    short_cfg.SOLVER.IMS_PER_BATCH = 4
    alone = flatten(take(short_cfg, 8))
    short_cfg.DATALOADER.NUM_WORKERS = 2
    assert_same(alone, flatten(take(short_cfg, 8)))


def test_a_resume_sees_the_same_images_with_the_same_augmentation(short_cfg):
    short_cfg.INPUT.MIN_SIZE_TRAIN = (48, 56, 64)
    straight = flatten(take(short_cfg, 20))
    assert_same(straight[14:], flatten(take(short_cfg, 13, position=14)))


def test_an_epoch_is_the_whole_set_and_the_next_one_another_order(short_cfg):
    short_cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    ids = [sample["image_id"] for sample in flatten(take(short_cfg, 24))]
    assert sorted(ids[:24]) == sorted(ids[24:]) == list(range(1, 25))
    assert ids[:24] != ids[24:]


def test_an_image_is_augmented_in_another_way_at_each_visit(short_cfg):
    short_cfg.INPUT.MIN_SIZE_TRAIN = tuple(range(32, 65))
    sizes: dict[int, set] = {}
    for sample in flatten(take(short_cfg, 60)):
        sizes.setdefault(sample["image_id"], set()).add(tuple(sample["image"].shape))
    assert max(map(len, sizes.values())) >= 3


def test_loading_leaves_the_generators_alone(short_cfg):
    loader = iter(build_train_loader(short_cfg, RethinkDatasetMapper(short_cfg, is_train=True)))
    next(loader)  # torch's DataLoader draws its own seed once
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    next(loader)
    assert random.getstate() == states[0] and np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


@pytest.mark.parametrize(
    ("batch", "processes", "micro_batch", "expected"), [(16, 8, 0, 2), (16, 1, 2, 2), (16, 2, 8, 8)]
)
def test_micro_batch_size(short_cfg, batch, processes, micro_batch, expected):
    short_cfg.SOLVER.IMS_PER_BATCH, short_cfg.RETHINK.MICRO_BATCH = batch, micro_batch
    assert micro_batch_size(short_cfg, processes) == expected


@pytest.mark.parametrize("micro_batch", [3, 16, -1])
def test_a_micro_batch_that_does_not_divide_is_refused(short_cfg, micro_batch):
    short_cfg.SOLVER.IMS_PER_BATCH, short_cfg.RETHINK.MICRO_BATCH = 16, micro_batch
    with pytest.raises(UserError, match=f"MICRO_BATCH {micro_batch} does not divide the 8 images"):
        micro_batch_size(short_cfg, 2)


def test_samplers_that_cannot_be_resumed_are_refused(short_cfg):
    short_cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    with pytest.raises(UserError, match=r"SAMPLER_TRAIN RepeatFactorTrainingSampler is not supported"):
        build_train_loader(short_cfg, RethinkDatasetMapper(short_cfg, is_train=True))
