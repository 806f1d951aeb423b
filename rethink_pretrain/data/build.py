"""The training loader: the host's records and mapper, in an order that a resume continues exactly."""

import atexit
import contextlib
import gc
import random
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import get_detection_dataset_dicts
from detectron2.data.build import trivial_batch_collator
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from ..errors import UserError, worker_errors
from .bad_images import MAX_ATTEMPTS, BadImage, BadImages, describe_bad, replacement
from .sampler import SAMPLE, MicroBatchSampler, aspect_groups, derive_seed
from .serialized import SerializedRecords

Record = dict[str, Any]


class SeededSamples(Dataset):
    """Mapped records, whose augmentation draws depend on the seed and the sample's position alone.

    A record that cannot be used is replaced by another one, which depends on the same two.
    """

    def __init__(self, records: list[Record], mapper: Callable[[Record], Record], seed: int):
        """`mapper` may draw from the generators of `random`, NumPy and torch (on the CPU).

        It raises `UserError` for a record that cannot be used.
        """
        self.dataset = SerializedRecords(records)
        self._mapper, self._seed = mapper, seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Record:
        """The sample at `key`: its position in the run and its index. Leaves the generators as they were.

        Under "replaces" it has the `BadImage`s in whose place it stands, if any. Raises `UserError` where
        one after the other cannot be used.
        """
        position, index = key
        replaced: list[BadImage] = []
        with _preserved_generators():
            while True:
                try:
                    sample = self._map(position, index)
                except UserError as error:
                    replaced.append(describe_bad(self.dataset[index], error))
                else:
                    return {**sample, "replaces": replaced} if replaced else sample
                if len(replaced) == MAX_ATTEMPTS:
                    reason = replaced[-1].reason
                    raise UserError(
                        f"{MAX_ATTEMPTS} training images in a row cannot be used. The last: {reason}"
                    )
                index = replacement(self._seed, position, len(replaced), len(self))

    def _map(self, position: int, index: int) -> Record:
        seed = derive_seed(self._seed, SAMPLE, position)
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        return self._mapper(self.dataset[index])


@contextlib.contextmanager
def _preserved_generators() -> Iterator[None]:
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


class TrainLoader:
    """Endless micro-batches (lists of mapped records) of this process; an iterator starts at `position`.

    bad_images: the `BadImages` that this process has met.
    """

    def __init__(
        self,
        dataset: SeededSamples,
        sampler: MicroBatchSampler,
        num_workers: int = 0,
        max_bad_images: float = 0.01,
        pin_memory: bool = False,
    ):
        """`max_bad_images`: the share of `dataset` above which an iterator raises `UserError`.

        `pin_memory`: of all tensors, from where copies to CUDA are faster.
        """
        self.dataset, self._sampler, self._num_workers = dataset, sampler, num_workers
        self._pin_memory = pin_memory
        self.bad_images = BadImages(len(dataset), max_bad_images)

    @property
    def position(self) -> int:
        """Samples of all processes that come before the first of the next iterator; set it to resume."""
        return self._sampler.position

    @position.setter
    def position(self, samples: int) -> None:
        self._sampler.position = samples

    def __iter__(self) -> Iterator[list[Record]]:
        # A generator: workers start at the first batch, when the position is known.
        if self._num_workers:
            # Python keeps some freed objects for reuse, and each keeps a whole MB of what the records took
            # before they were pickled; workers would hold on to all of it. A full collection lets go.
            gc.collect()
        batches = DataLoader(
            self.dataset,
            batch_sampler=self._sampler,
            num_workers=self._num_workers,
            collate_fn=trivial_batch_collator,
            worker_init_fn=ignore_signals,
            pin_memory=self._pin_memory,
        )
        with worker_errors(), ended_workers(iter(batches)) as batches:
            for batch in batches:
                for sample in batch:
                    for bad in sample.pop("replaces", ()):
                        self.bad_images.add(bad)
                yield batch


@contextlib.contextmanager
def ended_workers(batches: Iterator) -> Iterator[Iterator]:
    """`batches` of torch, whose workers end with this context and with the process.

    A traceback may keep an iterator alive to the end, where Python sends SIGTERM to the workers and waits for
    them; but they ignore it.
    """
    end = getattr(batches, "_shutdown_workers", None)  # an iterator without workers has none
    if end is None:
        yield batches
        return
    atexit.register(end)
    try:
        yield batches
    finally:
        atexit.unregister(end)
        end()


def ignore_signals(worker: int) -> None:
    """A job's signals reach all its processes; the training process decides, and ends its workers."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def micro_batch_size(cfg: CfgNode, processes: int) -> int:
    """Images of one micro-batch. Raises `UserError` where RETHINK.MICRO_BATCH does not divide the share."""
    share = cfg.SOLVER.IMS_PER_BATCH // processes
    micro_batch = cfg.RETHINK.MICRO_BATCH or share
    if micro_batch < 0 or share % micro_batch:
        raise UserError(
            f"RETHINK.MICRO_BATCH {micro_batch} does not divide the {share} images per process and step "
            f"(SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH}, {processes} processes). Set it to a divisor, "
            "or to 0 for all at once."
        )
    return micro_batch


def build_train_loader(cfg: CfgNode, mapper: Callable[[Record], Record]) -> TrainLoader:
    """The loader of this process for DATASETS.TRAIN. `cfg.SEED` is the same in all processes, and >= 0."""
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        raise UserError(
            f"DATALOADER.SAMPLER_TRAIN {cfg.DATALOADER.SAMPLER_TRAIN} is not supported: its order cannot be "
            "continued after a stop. Set it to TrainingSampler; for a part of a set, write NAME@10%."
        )
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
    records = get_detection_dataset_dicts(
        cfg.DATASETS.TRAIN,
        filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
        min_keypoints=keypoints,
        proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
    )
    seed, processes = max(cfg.SEED, 0), comm.get_world_size()
    grouped = cfg.DATALOADER.ASPECT_RATIO_GROUPING
    # Sets for semantic segmentation do not tell sizes.
    sizes = [(record.get("width", 1), record.get("height", 1)) if grouped else (1, 1) for record in records]
    sampler = MicroBatchSampler(
        aspect_groups(np.array(sizes).reshape(-1, 2), cfg.RETHINK.SPEED.ASPECT_BUCKETS),
        seed=seed,
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
        micro_batch=micro_batch_size(cfg, processes),
        unit=max(cfg.RETHINK.ASPECT_GROUP, 1) if grouped else 1,
        rank=comm.get_rank(),
        processes=processes,
    )
    samples = SeededSamples(records, mapper, seed)
    return TrainLoader(
        samples,
        sampler,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        max_bad_images=cfg.RETHINK.MAX_BAD_IMAGES,
        pin_memory=cfg.MODEL.DEVICE != "cpu" and torch.cuda.is_available(),
    )
