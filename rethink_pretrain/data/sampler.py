"""The order of training images: a pure function of the seed and of how many images came before.

Plain NumPy. A run that stopped goes on with the image it would have seen next, on any number of processes and
data-loading workers, without a state to save but that number.
"""

from collections.abc import Iterator
from math import gcd

import numpy as np

SAMPLE, STEP = 0, 1  # what a derived seed is for


def derive_seed(seed: int, purpose: int, *numbers: int) -> int:
    """A seed below 2**32 for one image or step of a run; the same on every machine and NumPy version."""
    return int(np.random.SeedSequence([seed, purpose, *numbers]).generate_state(1)[0])


def aspect_groups(sizes: np.ndarray, buckets: int) -> np.ndarray:
    """The group of each image by the shape of its `sizes` (N, 2), width and height in px; int (N,).

    With 2 buckets, as in the host, those wider than tall and the others. More of them, an even number, part
    each of these by aspect ratio into equally many images, as far as equal ratios allow.
    """
    ratios = sizes[:, 0] / sizes[:, 1]
    groups = (ratios > 1).astype(np.int64)
    shares = np.arange(1, buckets // 2) / (buckets // 2)
    for orientation in np.unique(groups) if len(shares) else ():
        inside = groups == orientation
        edges = np.quantile(ratios[inside], shares, method="lower")
        groups[inside] += 2 * np.searchsorted(edges, ratios[inside], side="left")
    return groups


def epoch_order(seed: int, epoch: int, groups: np.ndarray, unit: int) -> np.ndarray:
    """Indices of one epoch, shuffled, every `unit` of them from one group; up to `unit` - 1 are left out.

    `groups` holds a small number for every image, such as 0 for a tall and 1 for a wide one. What fills no
    unit of its own group shares the last units.
    """
    # The generator whose stream NumPy has promised never to change.
    order = np.random.RandomState([seed % 2**32, epoch]).permutation(len(groups))
    units, ends, rest = [], [], []
    for group in np.unique(groups):
        places = np.flatnonzero(groups[order] == group)
        whole = len(places) // unit * unit
        units.append(places[:whole].reshape(-1, unit))
        ends.append(units[-1][:, -1])
        rest.append(places[whole:])
    mixed = np.sort(np.concatenate(rest))
    mixed = mixed[: len(mixed) // unit * unit].reshape(-1, unit)
    # A unit is ready when its last image has come.
    by_time = np.argsort(np.concatenate(ends), kind="stable")
    return order[np.concatenate([np.concatenate(units)[by_time], mixed]).reshape(-1)]


class MicroBatchSampler:
    """Endless micro-batches of one process: lists of (position, index) keys for a data set.

    The run's samples are numbered 0, 1, 2, ... over all processes. Every `batch_size` of them are a batch, of
    which each process has an equal, contiguous share, in micro-batches of `micro_batch`.
    """

    def __init__(
        self,
        groups: np.ndarray,
        *,
        seed: int,
        batch_size: int,
        micro_batch: int,
        unit: int = 1,
        rank: int = 0,
        processes: int = 1,
    ):
        """`groups`: see `epoch_order`; `unit`: images of one group that stay together.

        `batch_size` divides by `processes`, and a process's share by `micro_batch`. A `unit` that does not
        divide the batch, or is larger than the set, becomes the largest that does.
        """
        unit = gcd(unit, batch_size)
        self._unit = unit if unit <= len(groups) else 1
        self._groups, self._seed = groups, seed
        self._batch_size, self._micro_batch = batch_size, micro_batch
        self._share = batch_size // processes
        self._first = rank * self._share
        self.position = 0  # samples of all processes that were consumed before; a multiple of the batch

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        samples = self._samples(self.position)
        while True:
            batch = [next(samples) for _ in range(self._batch_size)]
            share = batch[self._first : self._first + self._share]
            for start in range(0, self._share, self._micro_batch):
                yield share[start : start + self._micro_batch]

    def _samples(self, position: int) -> Iterator[tuple[int, int]]:
        epoch_length = len(self._groups) // self._unit * self._unit
        while True:
            epoch, done = divmod(position, epoch_length)
            for index in epoch_order(self._seed, epoch, self._groups, self._unit)[done:]:
                yield position, int(index)
                position += 1
