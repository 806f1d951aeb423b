"""Schedules against the paper's table, the host's own configs and hand-computed numbers."""

from itertools import pairwise

import pytest
import yaml
from conftest import PAPER_SCHEDULES, host_config_file

from rethink_pretrain.errors import UserError
from rethink_pretrain.solver import build_schedule, parse_length

# Host config, its length in our words -> (IMS_PER_BATCH, MAX_ITER, STEPS, BASE_LR) read in Detectron2.
HOST = {
    ("Base-RCNN-FPN.yaml", "1x"): (16, 90_000, (60_000, 80_000), 0.02),
    ("Misc/mask_rcnn_R_50_FPN_3x_gn.yaml", "3x"): (16, 270_000, (210_000, 250_000), 0.02),
    ("Misc/scratch_mask_rcnn_R_50_FPN_9x_gn.yaml", "9x"): (64, 202_500, (187_500, 197_500), 0.08),
}
BATCHES = (1, 2, 6, 8, 16, 24, 32, 50, 64, 128, 500)


class TestPaper:
    @pytest.mark.parametrize("length", PAPER_SCHEDULES)
    def test_table(self, length):
        max_iter, steps = PAPER_SCHEDULES[length]
        assert build_schedule(length) == (max_iter, steps, 0.02, 500)

    def test_batch_of_64(self):
        assert build_schedule("6x", 64) == (135_000, (120_000, 130_000), pytest.approx(0.08), 125)

    @pytest.mark.parametrize(("file", "length"), HOST)
    def test_host_config(self, file, length):
        batch, max_iter, steps, base_lr = HOST[file, length]
        schedule = build_schedule(length, batch)
        assert schedule[:3] == (max_iter, steps, pytest.approx(base_lr))

    @pytest.mark.parametrize(("file", "length"), HOST)
    def test_host_numbers_are_the_hosts(self, file, length):
        solver = read_host_solver(file)
        found = (solver["IMS_PER_BATCH"], solver["MAX_ITER"], solver["STEPS"], solver["BASE_LR"])
        assert found == HOST[file, length]


def read_host_solver(file: str) -> dict:
    """The SOLVER keys that `file` of the host's configs sets, merged over those of its _BASE_."""
    path = host_config_file(file)
    solver = {}
    while path:
        content = yaml.safe_load(path.read_text())
        solver = {**content.get("SOLVER", {}), **solver}
        path = path.parent / content["_BASE_"] if "_BASE_" in content else None
    if isinstance(solver["STEPS"], str):  # "(60000, 80000)", which the host's config class evaluates
        solver["STEPS"] = tuple(int(step) for step in solver["STEPS"].strip("()").split(","))
    return solver


class TestLengths:
    @pytest.mark.parametrize(
        ("length", "max_iter", "steps"),
        [
            ("0.5x", 45_000, (30_000, 40_000)),
            ("1.5x", 135_000, (90_000, 120_000)),
            ("1.95x", 175_500, (117_000, 156_000)),
            ("2.5x", 225_000, (165_000, 205_000)),
            ("8.6M images", 537_500, (477_500, 517_500)),
            ("1440k images", 90_000, (60_000, 80_000)),
            ("7200 images", 450, (300, 400)),
            ("73ep", 539_684, (479_684, 519_684)),  # 73 x 118,287 / 16 = 539,684.4: the paper's 6x
            ("10ep", 73_929, (49_286, 65_715)),  # below 2x: two thirds and eight ninths
        ],
    )
    def test_units(self, length, max_iter, steps):
        assert build_schedule(length)[:2] == (max_iter, steps)

    @pytest.mark.parametrize(
        ("text", "images"),
        [
            ("6x", 8_640_000),
            (" 6 x ", 8_640_000),
            ("220k iterations", 3_520_000),
            ("1.5 M iterations", 24_000_000),
            ("73ep", 8_634_951),
            ("2 ep", 236_574),
            ("8.6Mimages", 8_600_000),
            ("8.6 M images", 8_600_000),
            ("5 images", 5),
        ],
    )
    def test_images(self, text, images):
        assert parse_length(text) == images

    def test_epochs_of_another_data_set(self):
        assert parse_length("10ep", images_per_epoch=3_000) == 30_000
        assert build_schedule("10ep", 8, images_per_epoch=3_000).max_iter == 3_750
        assert parse_length("6x", images_per_epoch=3_000) == 8_640_000  # "x" never depends on the data

    def test_references(self):
        schedule = build_schedule("1x", 32, reference_lr=0.04, reference_warmup_iters=1000)
        assert schedule == (45_000, (30_000, 40_000), pytest.approx(0.08), 500)


class TestStepRules:
    def test_they_meet_at_2x(self):
        """One iteration less than 2x uses shares of the length, 2x itself distances from the end."""
        below = build_schedule(f"{16 * 179_999} images")
        at = build_schedule("2x")
        above = build_schedule(f"{16 * 180_001} images")
        assert below.max_iter == 179_999
        assert above.max_iter == 180_001
        for before, middle, after in zip(below.steps, at.steps, above.steps, strict=True):
            assert 0 <= middle - before <= 1
            assert 0 <= after - middle <= 1

    @pytest.mark.parametrize("batch", BATCHES)
    def test_longer_is_never_earlier(self, batch):
        schedules = [build_schedule(f"{tenths / 10}x", batch) for tenths in range(1, 121)]
        for shorter, longer in pairwise(schedules):
            assert shorter.max_iter < longer.max_iter
            assert shorter.steps[0] < longer.steps[0]
            assert shorter.steps[1] < longer.steps[1]


class TestDrops:
    """RETHINK.DROPS; the 10k recipe of figure 7 drops once, 20k before the end."""

    @pytest.mark.parametrize("thousands", [60, 100, 140, 180, 220])
    def test_10k_recipe(self, thousands):
        schedule = build_schedule(f"{thousands}k iterations", drops=(20_000,))
        assert schedule[:2] == (thousands * 1000, (thousands * 1000 - 20_000,))

    def test_linear_rule(self):
        assert build_schedule("220k iterations", 64, drops=(20_000,))[:2] == (55_000, (50_000,))

    def test_shares_and_distances(self):
        assert build_schedule("1x", drops=(0.5, 20_000)).steps == (45_000, 70_000)

    @pytest.mark.parametrize("drops", [(90_000,), (100_000,), (20_000, 60_000), (0.9, 0.5), (20_000, 20_000)])
    def test_impossible(self, drops):
        with pytest.raises(UserError, match=r"RETHINK\.DROPS"):
            build_schedule("1x", drops=drops)


class TestLinearRule:
    """Whatever the batch, the same images are seen at the same learning rate per image."""

    @pytest.mark.parametrize("batch", BATCHES)
    @pytest.mark.parametrize("length", PAPER_SCHEDULES)
    def test_images_at_each_event(self, length, batch):
        schedule = build_schedule(length, batch)
        max_iter, steps = PAPER_SCHEDULES[length]
        assert abs(schedule.max_iter * batch - max_iter * 16) <= batch / 2
        for step, reference in zip(schedule.steps, steps, strict=True):
            # Half a batch of rounding for the length and half for the drop itself.
            assert abs(step * batch - reference * 16) <= batch

    @pytest.mark.parametrize("batch", BATCHES)
    def test_images_of_the_warm_up(self, batch):
        assert abs(build_schedule("6x", batch).warmup_iters * batch - 8_000) <= batch / 2

    @pytest.mark.parametrize("batch", BATCHES)
    def test_learning_rate_per_image(self, batch):
        assert build_schedule("6x", batch).base_lr / batch == pytest.approx(0.02 / 16, rel=1e-12)

    def test_warm_up_keeps_one_iteration(self):
        assert build_schedule("6x", 50_000).warmup_iters == 1  # 8000 images are 0.16 of one

    def test_types_fit_the_host(self):
        schedule = build_schedule("73ep", 24)
        assert [type(value) for value in schedule] == [int, tuple, float, int]
        assert [type(step) for step in schedule.steps] == [int, int]


class TestErrors:
    @pytest.mark.parametrize(
        "length",
        ["", "6", "x", "6X", "6 epochs", "6M", "8.6G images", "6x 3x", "0x", "0.0ep", "0 images", "-1x"]
        + ["+1x", "6kx", "6 k x", "2Mep", "1e3x", ".5x", "6.x", "nanx", "infx", "six", "6x\n7x"],
    )
    def test_unknown_length(self, length):
        with pytest.raises(UserError) as info:
            build_schedule(length)
        message = str(info.value)
        assert message.startswith(f"Unknown training length {length!r} in RETHINK.SCHEDULE.")
        assert "\n" not in message
        for example in ('"6x"', '"73ep"', '"8.6M images"'):
            assert example in message

    @pytest.mark.parametrize(
        ("length", "batch", "iterations"),
        [("1 images", 16, 0), ("16 images", 16, 1), ("64 images", 16, 4), ("1x", 1_440_000, 1)]
        + [("2x", 1_000_000, 3)],
    )
    def test_too_short(self, length, batch, iterations):
        with pytest.raises(UserError, match="too short") as info:
            build_schedule(length, batch)
        message = str(info.value)
        assert f"{length!r} is {iterations} iterations of {batch} images" in message
        assert "SOLVER.IMS_PER_BATCH" in message
        assert "\n" not in message

    def test_shortest(self):
        """Five iterations: the least with whole numbers at 2/3 and 8/9 that differ from each other."""
        assert build_schedule("80 images", 16)[:2] == (5, (3, 4))
