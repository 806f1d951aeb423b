"""The order of images: what every epoch, process and resume has to see."""

import itertools

import numpy as np
import pytest

from rethink_pretrain.data import MicroBatchSampler, derive_seed, epoch_order
from rethink_pretrain.data.sampler import aspect_groups

TALL_AND_WIDE = np.array([0, 1, 1, 0, 1, 1, 1, 0, 1, 1, 1], dtype=np.int8)


def take(sampler: MicroBatchSampler, number: int) -> list[list[tuple[int, int]]]:
    return list(itertools.islice(sampler, number))


def sampler(**changes) -> MicroBatchSampler:
    settings = {"seed": 3, "batch_size": 4, "micro_batch": 4, "unit": 2}
    return MicroBatchSampler(TALL_AND_WIDE, **{**settings, **changes})


class TestEpochOrder:
    def test_without_groups_it_is_numpys_permutation(self):
        """RandomState, whose stream NumPy keeps for ever, seeded by (seed, epoch)."""
        expected = np.random.RandomState([5, 2]).permutation(7)
        assert epoch_order(5, 2, np.zeros(7), 1).tolist() == expected.tolist()

    def test_an_order_written_down(self):
        """Committed once: another machine or version that gives another order breaks every resume."""
        assert epoch_order(0, 0, np.zeros(10), 1).tolist() == [3, 7, 6, 4, 1, 0, 2, 8, 5, 9]

    @pytest.mark.parametrize("unit", [1, 2, 3, 4])
    @pytest.mark.parametrize("epoch", range(5))
    def test_every_image_once_but_for_what_fills_no_unit(self, unit, epoch):
        order = epoch_order(1, epoch, TALL_AND_WIDE, unit)
        assert len(order) == len(set(order)) == len(TALL_AND_WIDE) // unit * unit

    @pytest.mark.parametrize("epoch", range(20))
    def test_units_are_of_one_group_but_for_the_last(self, epoch):
        units = epoch_order(1, epoch, TALL_AND_WIDE, 2).reshape(-1, 2)
        mixed = [len(set(TALL_AND_WIDE[unit])) > 1 for unit in units]
        assert not any(mixed[:-1])  # 3 tall and 8 wide ones: one tall image is left over
        assert len(units) == 5

    def test_a_unit_comes_when_its_last_image_has_come(self):
        shuffled = np.random.RandomState([1, 0]).permutation(11).tolist()
        units = epoch_order(1, 0, TALL_AND_WIDE, 2).reshape(-1, 2)
        places = [shuffled.index(unit[-1]) for unit in units]
        assert places == sorted(places) and all(shuffled.index(a) < shuffled.index(b) for a, b in units)


class TestMicroBatchSampler:
    def test_processes_and_micro_batches_share_one_order(self):
        """Whatever the split, a batch has the same images, in the same order."""
        whole = take(sampler(), 6)
        for processes, micro_batch in ((1, 2), (1, 1), (2, 2), (2, 1), (4, 1)):
            parts = 4 // processes // micro_batch
            split = [
                take(sampler(micro_batch=micro_batch, rank=rank, processes=processes), 6 * parts)
                for rank in range(processes)
            ]
            for step in range(6):
                batch = [key for rank in split for part in rank[step * parts :][:parts] for key in part]
                assert batch == whole[step], (processes, micro_batch)

    @pytest.mark.parametrize("done", [0, 4, 8, 12, 40, 100])
    def test_a_resume_goes_on_with_the_next_image(self, done):
        straight = take(sampler(), done // 4 + 5)
        resumed = sampler()
        resumed.position = done
        assert take(resumed, 5) == straight[done // 4 :]

    def test_positions_count_samples(self):
        keys = [key for batch in take(sampler(), 10) for key in batch]
        assert [position for position, _ in keys] == list(range(40))

    def test_units_stay_whole_in_micro_batches(self):
        """The paper's 2 images a GPU have one orientation; only the last unit of an epoch may be mixed."""
        batches = take(sampler(micro_batch=2), 5 * 8)
        mixed = [len({TALL_AND_WIDE[index] for _, index in batch}) > 1 for batch in batches]
        assert all(number % 5 == 4 for number, is_mixed in enumerate(mixed) if is_mixed)

    @pytest.mark.parametrize(("batch_size", "unit", "expected"), [(3, 2, 1), (4, 6, 2), (1, 2, 1)])
    def test_a_unit_that_does_not_divide_the_batch_shrinks(self, batch_size, unit, expected):
        found = sampler(batch_size=batch_size, micro_batch=batch_size, unit=unit)
        order = [index for batch in take(found, 30) for _, index in batch]
        length = 11 // expected * expected
        assert order[:length] == epoch_order(3, 0, TALL_AND_WIDE, expected).tolist()

    def test_a_set_smaller_than_the_unit_still_trains(self):
        tiny = MicroBatchSampler(np.zeros(1), seed=0, batch_size=4, micro_batch=4, unit=2)
        assert take(tiny, 1) == [[(0, 0), (1, 0), (2, 0), (3, 0)]]


def test_derived_seeds_differ_and_stay():
    seeds = {derive_seed(seed, purpose, i) for seed in (0, 1) for purpose in (0, 1) for i in range(50)}
    assert len(seeds) == 200
    assert derive_seed(7, 0, 123) == derive_seed(7, 0, 123) == 4254884735


def padded_share(sizes: np.ndarray, buckets: int) -> float:
    """Of the pixels of all batches of 4, those that are not of their images."""
    sampler = MicroBatchSampler(aspect_groups(sizes, buckets), seed=0, batch_size=4, micro_batch=4, unit=4)
    batches = sizes[np.array(list(itertools.islice(iter(sampler), len(sizes) // 4)))[..., 1]]
    return 1 - batches.prod(2).sum() / (4 * batches.max(1).prod(1)).sum()


class TestAspectGroups:
    def test_two_are_the_host_s(self):
        """It asks whether an image is wider than tall; a square is not."""
        sizes = np.array([[4, 3], [3, 4], [5, 5], [2, 1]])
        assert aspect_groups(sizes, 2).tolist() == [1, 0, 0, 1]

    def test_more_are_as_large_as_each_other_within_wide_and_tall(self):
        ratios = np.array([1.1, 1.2, 1.3, 1.4, 1.5, 1.6])
        wide = np.column_stack([1000 * ratios, np.full(6, 1000)])
        groups = aspect_groups(np.concatenate([wide, wide[:, ::-1]]), 6)
        assert groups.tolist() == [1, 1, 3, 3, 5, 5, 4, 4, 2, 2, 0, 0]

    def test_equal_ratios_stay_together(self):
        """4:3 is most of COCO."""
        sizes = np.array([[640, 480]] * 9 + [[640, 427]] * 2)
        groups = aspect_groups(sizes, 8)
        assert set(groups[:9]).isdisjoint(groups[9:]) and len(set(groups[:9])) == 1

    def test_no_images(self):
        assert aspect_groups(np.empty((0, 2)), 4).tolist() == []

    def test_less_is_padded(self):
        rng = np.random.default_rng(0)
        short, ratio = 800, np.exp(rng.normal(0, 0.4, 4000))
        sizes = np.column_stack([short * np.maximum(ratio, 1), short * np.maximum(1 / ratio, 1)])
        assert padded_share(sizes, 8) < padded_share(sizes, 2) / 2
