"""The guard alone, the host's schedule under it, and two processes of which one has a bad image."""

import io
import json
import logging
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm
from tiny_loop import LEARNING_RATE, LENGTH, Model, assert_same, build_loop, schedule_config, snapshot
from torch import nn
from two_processes import run_on_two_ranks

from rethink_pretrain.engine.numerics import (
    EXPLODING_LOSS,
    NON_FINITE_GRADIENT,
    NON_FINITE_LOSS,
    Finding,
    LossGuard,
    RollBack,
    Step,
    build_loss_guard,
    halve_learning_rate,
    share_outcome,
)
from rethink_pretrain.errors import UserError

BAD = Finding(NON_FINITE_LOSS, float("nan"))


def build_guard(folder, **values) -> LossGuard:
    return LossGuard(**{"policy": "skip", "max_in_a_row": 10, "output_dir": folder, **values})


def bad_step(iteration: int) -> Step:
    return Step(iteration, 4 * iteration, 4, 0.1, {"loss": torch.tensor(float("nan"))}, [7, 8])


def find(guard: LossGuard, loss: float, gradients: list[torch.Tensor]) -> Finding:
    return guard.examine(share_outcome({"loss": torch.tensor(loss)}, gradients, 0.0))


def examine(guard: LossGuard, loss: float, iteration: int) -> str:
    """As the loop does, with the default policy."""
    finding = find(guard, loss, [])
    if finding.kind:
        guard.handle(finding, bad_step(iteration), nn.Linear(1, 1))
    else:
        guard.accept(finding, iteration)
    return finding.kind


def read_incidents(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "incidents.jsonl").read_text().splitlines()]


def test_a_loss_explodes_by_the_median_of_the_last_hundred_good_ones(tmp_path):
    """Against NumPy, on losses that drift by orders of magnitude; bad ones do not count as good."""
    random = np.random.default_rng(0)
    losses = np.float32(10 ** (random.normal(0, 1, 400) + np.linspace(0, 3, 400)))
    guard = build_guard(tmp_path, explosion=30.0, max_in_a_row=1000)
    good, found, expected = [], [], []
    for iteration, loss in enumerate(losses):
        found.append(examine(guard, float(loss), iteration))
        explodes = len(good) >= 20 and loss > 30 * np.median(good[-100:])
        expected.append(EXPLODING_LOSS if explodes else "")
        if not explodes:
            good.append(loss)
    assert found == expected
    assert 3 < expected.count(EXPLODING_LOSS) < 100
    assert guard.incidents == expected.count(EXPLODING_LOSS)


def test_explosion_zero_is_off(tmp_path):
    guard = build_guard(tmp_path, explosion=0.0)
    assert not any(examine(guard, 10.0 ** (iteration % 30), iteration) for iteration in range(100))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_value_in_any_gradient_is_found(tmp_path, value):
    guard = build_guard(tmp_path)
    gradients = [torch.randn(3, 3), torch.randn(5)]
    assert find(guard, 1.0, gradients) == Finding("", 1.0)
    gradients[1][4] = value
    assert find(guard, 1.0, gradients) == Finding(NON_FINITE_GRADIENT, 1.0)
    assert find(guard, value, gradients).kind == NON_FINITE_LOSS


def test_a_guard_goes_on_where_it_was_saved(tmp_path):
    """Through a file that holds plain values alone, in the middle of a row and with a full window."""
    losses = [1.0 + iteration % 7 for iteration in range(130)] + [float("nan")] * 2
    straight = build_guard(tmp_path, explosion=10.0, max_in_a_row=4)
    for iteration, loss in enumerate(losses):
        examine(straight, loss, iteration)
    file = io.BytesIO()
    torch.save(straight.state_dict(), file)
    file.seek(0)
    resumed = build_guard(tmp_path, explosion=10.0, max_in_a_row=4)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for guard in (straight, resumed):
        assert (guard.incidents, guard.in_a_row) == (2, 2)
        assert examine(guard, 41.0, 132) == EXPLODING_LOSS
        assert examine(guard, 39.0, 133) == ""
        assert (guard.incidents, guard.in_a_row) == (3, 0)
    assert straight.state_dict() == resumed.state_dict()


def test_so_many_in_a_row_end_training_with_advice(short_cfg, tmp_path):
    short_cfg.OUTPUT_DIR = str(tmp_path)
    short_cfg.RETHINK.NUMERICS.MAX_IN_A_ROW = 3
    short_cfg.RETHINK.REFERENCE_LR, short_cfg.SOLVER.BASE_LR = 0.04, 0.1
    guard = build_loss_guard(short_cfg, lambda: None)
    for iteration in range(2):
        examine(guard, float("nan"), iteration)
    examine(guard, 1.0, 2)
    for iteration in range(3, 5):
        examine(guard, float("inf"), iteration)
    with pytest.raises(UserError) as error:
        examine(guard, float("nan"), 5)
    message = str(error.value)
    assert message.startswith("Iteration 5: non-finite loss (nan), incident 3 in a row;")
    assert "\n" not in message and "incidents.jsonl" in message
    for words in (
        f"RETHINK.REFERENCE_WARMUP_ITERS {short_cfg.RETHINK.REFERENCE_WARMUP_ITERS}",
        "SOLVER.CLIP_GRADIENTS.ENABLED False",
        f"MODEL.PIXEL_STD {short_cfg.MODEL.PIXEL_STD}",
        "SOLVER.BASE_LR (0.1 for 2 images; the linear rule gives 0.005)",
    ):
        assert words in message
    actions = [(line["iteration"], line["action"]) for line in read_incidents(tmp_path)]
    assert actions == [(0, "skip"), (1, "skip"), (3, "skip"), (4, "skip"), (5, "stop")]


def test_the_line_of_a_bad_step(tmp_path, caplog):
    guard = build_guard(tmp_path, seed=3)
    for iteration, loss in enumerate([1.0, 2.0, 6.0]):
        examine(guard, loss, iteration)
    with caplog.at_level(logging.WARNING):
        examine(guard, float("nan"), 3)
    (line,) = read_incidents(tmp_path)
    del line["time"]
    assert line == {
        "iteration": 3,
        "kind": "non-finite loss",
        "action": "skip",
        "loss": "nan",
        "median": 2.0,
        "lr": 0.1,
        "seed": 3,
        "samples": 12,
        "losses": [{"loss": "nan"}],
        "image_ids": [[7, 8]],
    }
    (message,) = caplog.messages
    assert message.startswith("Iteration 3: non-finite loss (nan): the step is left out.")


def test_stop_and_roll_back(tmp_path):
    model = nn.Linear(1, 1)
    with pytest.raises(UserError, match="Iteration 9: non-finite loss"):
        build_guard(tmp_path, policy="stop").handle(BAD, bad_step(9), model)
    with pytest.raises(RollBack) as error:
        build_guard(tmp_path, policy="roll_back").handle(BAD, bad_step(9), model)
    assert (error.value.iteration, error.value.samples) == (9, 40)


def test_roll_backs_end_where_training_does_not_get_beyond_the_place(tmp_path):
    """Each goes back from iteration 9 or before it to 5; good steps in between change nothing."""
    model, counts = nn.Linear(1, 1), None
    for number, iteration in enumerate((9, 7, 9)):
        guard = build_guard(tmp_path, policy="roll_back", max_in_a_row=3)
        if counts:
            guard.load_state_dict(counts)
        for good in range(5, iteration):
            guard.accept(Finding("", 1.0), good)
        with pytest.raises(UserError if number == 2 else RollBack) as error:
            guard.handle(BAD, bad_step(iteration), model)
        counts = getattr(error.value, "counts", counts)
    guard.load_state_dict(counts)
    for good in range(5, 11):
        guard.accept(Finding("", 1.0), good)
    assert (guard.in_a_row, guard.incidents) == (0, 2)


@pytest.mark.parametrize("policy", ["skip", "lower_lr"])
def test_bad_statistics_can_only_be_rolled_back(tmp_path, policy):
    model = nn.BatchNorm1d(2)
    guard = build_guard(tmp_path, policy=policy, lower_lr=lambda: None)
    guard.handle(BAD, bad_step(0), model)
    model.running_var[1] = float("inf")
    with pytest.raises(RollBack):
        guard.handle(BAD, bad_step(1), model)
    first, second = read_incidents(tmp_path)
    assert (first["action"], second["action"]) == (policy, "roll_back")
    assert "reason" not in first and "buffers" in second["reason"]


def test_a_halved_learning_rate_stays_halved_through_a_checkpoint():
    """The schedule of a run that halves behind iteration 7 and resumes behind 9, against the host's alone."""
    expected = learning_rates(LENGTH)
    optimizer, scheduler = build_optimizer()
    found = []
    for iteration in range(LENGTH):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if iteration == 7:
            halve_learning_rate(optimizer, scheduler)
            assert optimizer.param_groups[0]["lr"] == expected[7] / 2
        scheduler.step()
        if iteration == 9:
            file = io.BytesIO()
            torch.save([optimizer.state_dict(), scheduler.state_dict()], file)
            file.seek(0)
            states = torch.load(file, weights_only=True)
            optimizer, scheduler = build_optimizer()
            optimizer.load_state_dict(states[0])
            scheduler.load_state_dict(states[1])
    assert found == expected[:8] + [lr / 2 for lr in expected[8:]]
    assert optimizer.param_groups[0]["initial_lr"] == LEARNING_RATE / 2


def build_optimizer():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LEARNING_RATE)
    return optimizer, build_lr_scheduler(schedule_config(), optimizer)


def learning_rates(count: int) -> list[float]:
    optimizer, scheduler = build_optimizer()
    ret = []
    for _ in range(count):
        ret.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return ret


class Case(NamedTuple):
    """Which images go wrong, and in which of the two processes a loss of iteration 2 is then NaN.

    An iteration has 4 images: 8 and 9 of iteration 2 are the first process's, 10 and 11 the second's.
    """

    bad: dict[int, str]
    nan_in: tuple[bool, bool]


CASES = {
    "nan": Case({11: "nan"}, (False, True)),
    "gradient": Case({11: "gradient"}, (False, False)),
    "refused": Case({11: "refused"}, (False, True)),
    "first": Case({8: "nan"}, (True, False)),
    "twice": Case({8: "refused", 20: "refused"}, (True, False)),
}


def run_rank(folder, rank: int) -> dict[str, dict]:
    """Iterations 0 to 5, of which 2 is bad, and the weights around it; then what ends training."""
    ret = {name: run_case(folder / name, case.bad) for name, case in CASES.items()}
    loop = build_loop(folder / "roll back", {11: "input"}, norm=True)
    try:
        loop.train(0, 6)
    except RollBack as error:
        ret["roll back"] = {"iteration": error.iteration, "samples": error.samples}
    loop = build_loop(folder / "stop", {11: "nan", 13: "nan"}, max_in_a_row=2)
    try:
        loop.train(0, 6)
    except UserError as error:
        ret["stop"] = {"message": str(error)}
    return ret


def run_case(folder, bad: dict[int, str]) -> dict:
    loop = build_loop(folder, bad)
    loop.train(0, 2)
    before = snapshot(loop)
    loop.train(2, 3)
    after = snapshot(loop)
    loop.train(3, 6)
    return {"before": before, "after": after, "end": snapshot(loop), "samples": loop.samples}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numerics")
    comm._get_global_gloo_group.cache_clear()  # the host keeps a process's first group
    yield folder, run_on_two_ranks(partial(run_rank, folder), folder)
    comm._get_global_gloo_group.cache_clear()


@pytest.mark.parametrize("name", CASES)
def test_both_processes_leave_out_the_step_of_one(ranks, name):
    folder, results = ranks
    first, second = (result[name] for result in results)
    for result in (first, second):
        assert_same(result["after"], result["before"])
        assert result["samples"] == 24
        assert all(value.isfinite().all() for value in result["end"].values())
        assert not torch.equal(result["end"]["linear.weight"], result["after"]["linear.weight"])
    assert_same(first["end"], second["end"])
    lines = read_incidents(folder / name)
    assert [line["iteration"] for line in lines] == sorted({image // 4 for image in CASES[name].bad})
    line = lines[0]
    assert line["kind"] == (NON_FINITE_GRADIENT if name == "gradient" else NON_FINITE_LOSS)
    assert (line["samples"], line["image_ids"]) == (8, [[8, 9], [10, 11]])
    nan_in = tuple("nan" in losses.values() for losses in line["losses"])
    assert nan_in == CASES[name].nan_in


def test_both_processes_roll_back_and_stop_in_the_same_step(ranks):
    """Only the second process's BatchNorm holds NaN."""
    folder, (first, second) = ranks
    assert first["roll back"] == second["roll back"] == {"iteration": 2, "samples": 12}
    assert first["stop"]["message"] == second["stop"]["message"]
    assert "Iteration 3" in first["stop"]["message"] and first["stop"]["message"].endswith("Warm up longer.")
    assert [line["action"] for line in read_incidents(folder / "stop")] == ["skip", "stop"]


def test_the_cases_go_wrong_as_they_say():
    """Or the tests above would prove nothing."""
    for kind in ("nan", "huge", "gradient"):
        model = Model({0: kind})
        losses = model([{"image_id": 0, "x": torch.ones(4)}])
        sum(losses.values()).backward()
        assert bool(losses["loss_b"].isfinite()), kind
        assert bool(losses["loss_a"].isfinite()) == (kind != "nan"), kind
        assert bool(model.linear.weight.grad.isfinite().all()) == (kind == "huge"), kind
