"""The training loader: what it yields, that draws depend on the position alone, and images that are bad."""

import gc
import itertools
import logging
import random
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm

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


class Node:
    """Something that a cycle can hold."""


def test_garbage_is_collected_before_workers_start(short_cfg):
    """Each of them would keep the pages of it."""
    short_cfg.DATALOADER.NUM_WORKERS = 1
    loader = build_train_loader(short_cfg, RethinkDatasetMapper(short_cfg, is_train=True))
    gc.disable()
    try:
        node = Node()
        node.itself, alive = node, weakref.ref(node)
        del node
        assert alive() is not None
        next(iter(loader))
        assert alive() is None
    finally:
        gc.enable()


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


BAD = (3, 8, 17)  # indices
BROKEN_SET = "toy_train_with_broken_files"


@pytest.fixture
def broken_cfg(short_cfg, tmp_path):
    """Of 24 images one is missing, one is empty and one is cut off; sizes are drawn."""
    records = [dict(record) for record in DatasetCatalog.get("toy_train")]
    for record in records:
        record["file_name"] = shutil.copy(record["file_name"], tmp_path)
    missing, empty, cut = (Path(records[index]["file_name"]) for index in BAD)
    missing.unlink()
    empty.write_bytes(b"")
    cut.write_bytes(cut.read_bytes()[:300])
    DatasetCatalog.register(BROKEN_SET, lambda: records)
    MetadataCatalog.get(BROKEN_SET).set(thing_classes=MetadataCatalog.get("toy_train").thing_classes)
    short_cfg.DATASETS.TRAIN = (BROKEN_SET,)
    short_cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    short_cfg.INPUT.MIN_SIZE_TRAIN = (48, 56, 64)
    short_cfg.SOLVER.IMS_PER_BATCH = 4
    yield short_cfg
    DatasetCatalog.remove(BROKEN_SET)
    MetadataCatalog.remove(BROKEN_SET)


def bad_ids() -> set[int]:
    records = DatasetCatalog.get(BROKEN_SET)
    return {records[index]["image_id"] for index in BAD}


def test_bad_images_are_replaced_and_the_others_stay_what_they_were(broken_cfg):
    seen = flatten(take(broken_cfg, 12))  # two epochs
    broken_cfg.DATASETS.TRAIN = ("toy_train",)
    whole = flatten(take(broken_cfg, 12))
    places = [place for place, sample in enumerate(whole) if sample["image_id"] in bad_ids()]
    assert len(places) == 6
    assert not {sample["image_id"] for sample in seen} & bad_ids()
    assert not any("replaces" in sample for sample in seen)
    good = [place for place in range(48) if place not in places]
    assert_same([seen[place] for place in good], [whole[place] for place in good])


def test_each_bad_image_is_named_once(broken_cfg, caplog):
    loader = build_train_loader(broken_cfg, RethinkDatasetMapper(broken_cfg, is_train=True))
    reported = []
    loader.bad_images.on_new = reported.append
    with caplog.at_level(logging.WARNING, "rethink_pretrain.data.bad_images"):
        list(itertools.islice(loader, 18))  # three epochs
    assert {bad.image_id for bad in reported} == bad_ids()
    assert len(reported) == len(caplog.records) == len(loader.bad_images) == 3
    records = DatasetCatalog.get(BROKEN_SET)
    assert {bad.file_name for bad in reported} == {records[index]["file_name"] for index in BAD}


def test_what_replaces_is_the_same_with_workers_and_after_a_resume_anywhere(broken_cfg):
    alone = flatten(take(broken_cfg, 12))
    broken_cfg.DATALOADER.NUM_WORKERS = 2
    assert_same(alone, flatten(take(broken_cfg, 12)))
    broken_cfg.DATALOADER.NUM_WORKERS = 0
    for position in range(4, 48, 4):
        assert_same(alone[position : position + 4], flatten(take(broken_cfg, 1, position=position)))


def test_what_replaces_is_the_same_for_two_processes(broken_cfg, monkeypatch):
    alone = take(broken_cfg, 12)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        shares.append(take(broken_cfg, 12))
    assert_same(flatten(alone), flatten([first + second for first, second in zip(*shares, strict=True)]))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_more_bad_images_than_the_config_allows_end_the_run(broken_cfg, num_workers):
    broken_cfg.DATALOADER.NUM_WORKERS, broken_cfg.RETHINK.MAX_BAD_IMAGES = num_workers, 0.0
    with pytest.raises(
        UserError, match=r"1 of 24 training images .* The last: Cannot read .*\.(jpg|png): "
    ) as error:
        take(broken_cfg, 12)
    assert str(error.value).isprintable()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_set_without_any_good_image_ends_in_one_line(broken_cfg, num_workers):
    broken_cfg.DATALOADER.NUM_WORKERS, broken_cfg.INPUT.FORMAT = num_workers, "NONE"
    with pytest.raises(UserError, match=r"^10 training images in a row cannot be used\. The last: ") as error:
        take(broken_cfg, 12)
    assert str(error.value).isprintable()


CRASH = """
import numpy as np
from rethink_pretrain.data.build import SeededSamples, TrainLoader
from rethink_pretrain.data.sampler import MicroBatchSampler

samples = SeededSamples([{"image_id": number} for number in range(20)], dict, seed=0)
sampler = MicroBatchSampler(np.zeros(20, np.int8), seed=0, batch_size=2, micro_batch=2)
batches = iter(TrainLoader(samples, sampler, num_workers=2))
next(batches)
raise AttributeError("a bug")
"""


def test_a_crash_ends_the_process_although_workers_ignore_signals():
    """Python waits at its end for processes that it has sent SIGTERM."""
    done = subprocess.run([sys.executable, "-c", CRASH], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("AttributeError: a bug")
