"""What a step tells the guard and the metrics: against the host's own metrics, and means by hand."""

import contextlib
import json
from collections import Counter
from functools import partial
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from tiny_loop import assert_same, build_loop, snapshot
from torch.utils._python_dispatch import TorchDispatchMode
from two_processes import run_on_two_ranks

from rethink_pretrain.engine import train_loop
from rethink_pretrain.engine.numerics import Outcome, share_outcome

STEPS = 3
COLLECTIVES = [
    *("all_reduce", "reduce", "broadcast", "barrier", "scatter", "reduce_scatter", "all_to_all"),
    *("gather", "gather_object", "all_gather", "all_gather_object", "all_gather_into_tensor"),
]


@contextlib.contextmanager
def counted_collectives():
    """How often the code in Python starts each collective; DistributedDataParallel's own are in C++."""
    counts = Counter()

    def counting(name, original):
        def call(*args, **kwargs):
            counts[name] += 1
            return original(*args, **kwargs)

        return call

    with contextlib.ExitStack() as stack:
        for name in COLLECTIVES:
            stack.enter_context(mock.patch.object(dist, name, counting(name, getattr(dist, name))))
        yield counts


class CountedReads(TorchDispatchMode):
    """Counts single numbers that are read from tensors, as by `item()`; each waits for the device."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def train_and_tell(folder, micro_batches: int, guarded: bool) -> dict:
    """Some steps: what went into their outcomes, what was logged, and what the host logs for the same."""
    loop = build_loop(folder, {}, micro_batches=micro_batches, guarded=guarded)
    shares = []

    def share(losses, gradients, data_time, counts):
        shares.append((losses, data_time))
        return share_outcome(losses, gradients, data_time, counts)

    reads = CountedReads()
    with mock.patch.object(train_loop, "share_outcome", share), counted_collectives() as counts, reads:
        loop.train(0, STEPS)
    values = []
    with EventStorage(0) as host:
        for losses, data_time in shares:
            values.append({name: loss.item() for name, loss in losses.items()} | {"data_time": data_time})
            loop.iter = host.iter
            loop._write_metrics(losses, data_time)  # the host's own
            host.step()
    logged, expected = (_histories(storage) for storage in (loop.storage, host))
    return {
        "values": values,
        "logged": logged,
        "host": expected,
        "counts": dict(counts),
        "reads": reads.count,
    }


def _histories(storage: EventStorage) -> dict[str, list]:
    histories = storage.histories().items()
    ours = ("lr", "samples/")
    return {name: history.values() for name, history in histories if not name.startswith(ours)}


def mean_by_hand(ranks: list[dict], step: int) -> dict[str, float]:
    rows = [rank["values"][step] for rank in ranks]
    ret = {name: np.mean([row[name] for row in rows]) for name in ("loss_a", "loss_b")}
    slowest = max(row["data_time"] for row in rows)
    return {**ret, "total_loss": ret["loss_a"] + ret["loss_b"], "data_time": slowest}


def assert_logged(ranks: list[dict]) -> None:
    logged, host = ranks[0]["logged"], ranks[0]["host"]
    assert logged.keys() == host.keys() == {"loss_a", "loss_b", "total_loss", "data_time"}
    for name, history in logged.items():
        assert [iteration for _, iteration in history] == list(range(STEPS))
        values = [value for value, _ in history]
        assert values == pytest.approx([value for value, _ in host[name]], rel=1e-12, abs=0)
        by_hand = [mean_by_hand(ranks, step)[name] for step in range(STEPS)]
        assert values == pytest.approx(by_hand, rel=1e-12, abs=0)


def run_rank(folder, rank: int) -> dict:
    ret = {
        "guarded": train_and_tell(folder / "guarded", micro_batches=2, guarded=True),
        "plain": train_and_tell(folder / "plain", micro_batches=1, guarded=False),
        "refused": refuse_first(folder / "refused"),
    }
    loop = build_loop(folder / "nan", {3: "nan"}, guarded=False)
    ret["nan"] = message_of(FloatingPointError, lambda: loop.train(0, 2))
    other = {"ab"[rank]: torch.tensor(1.0), "c": torch.tensor(2.0)}
    ret["other names"] = message_of(RuntimeError, lambda: share_outcome(other, [], 0.0))
    many = {str(number): torch.tensor(1.0) for number in range(65)}
    ret["too many"] = message_of(ValueError, lambda: share_outcome(many, [], 0.0))
    del many["64"]
    many["0"] += rank
    many = dict(sorted(many.items(), reverse=rank == 1))
    ret["just enough"] = tuple(share_outcome(many, [torch.tensor([0.0, float("inf") * rank])], 3.0 + rank))
    return ret


def refuse_first(folder) -> dict:
    """Nobody knows yet how many losses there are, and one of two micro-batches fails, in one process."""
    loop = build_loop(folder, {3: "refused"}, micro_batches=2)
    before = snapshot(loop)
    loop.train(0, 1)
    ret = {"before": before, "after": snapshot(loop), "logged": list(_histories(loop.storage))}
    loop.train(1, 2)
    return {**ret, "end": snapshot(loop)}


def message_of(kind: type[Exception], work) -> str:
    with pytest.raises(kind) as error:
        work()
    return str(error.value)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outcome")
    yield folder, run_on_two_ranks(partial(run_rank, folder), folder)
    comm._get_global_gloo_group.cache_clear()  # the host keeps a process's first group


@pytest.mark.parametrize("name", ["guarded", "plain"])
def test_two_processes_log_what_the_host_does_by_one_collective_a_step(ranks, name):
    results = [result[name] for result in ranks[1]]
    assert_logged(results)
    assert results[0]["values"][0]["loss_a"] != results[1]["values"][0]["loss_a"]
    assert results[1]["logged"] == {}
    for result in results:
        assert result["counts"] == {"all_gather": STEPS} and result["reads"] == 0


@pytest.mark.parametrize("guarded", [True, False])
def test_one_process_logs_what_the_host_does_without_a_collective(tmp_path, guarded):
    result = train_and_tell(tmp_path, micro_batches=2, guarded=guarded)
    assert_logged([result])
    assert result["counts"] == {} and result["reads"] == 0


def test_a_process_that_fails_in_the_first_step_is_heard_by_all(ranks):
    folder, results = ranks
    first, second = (result["refused"] for result in results)
    for result in (first, second):
        assert_same(result["before"], result["after"])
        assert not torch.equal(result["end"]["linear.weight"], result["after"]["linear.weight"])
    assert_same(first["end"], second["end"])
    assert "total_loss" not in first["logged"]
    (line,) = map(json.loads, (folder / "refused" / "incidents.jsonl").read_text().splitlines())
    assert (line["iteration"], line["kind"]) == (0, "non-finite loss")
    assert [sorted(losses) for losses in line["losses"]] == [
        ["loss_a", "loss_b"],
        ["loss_a", "loss_b", "total_loss"],
    ]


def test_without_a_guard_both_processes_refuse_the_loss_of_one(ranks):
    for result in ranks[1]:
        assert "Iteration 0: the loss is not finite" in result["nan"] and "'loss_a': nan" in result["nan"]


def test_without_a_guard_one_process_refuses_as_the_host_does(tmp_path):
    loop = build_loop(tmp_path, {9: "nan"}, guarded=False)
    loop.train(0, 2)
    before = snapshot(loop)
    with pytest.raises(FloatingPointError, match="Iteration 2"):
        loop.train(2, 3)
    assert_same(snapshot(loop), before)
    loop.iter = 2
    with EventStorage(2), pytest.raises(FloatingPointError):
        loop._write_metrics({"loss_a": torch.tensor(float("nan"))}, 0.0)


def test_losses_of_other_names_are_an_error_in_both_processes(ranks):
    messages = [result["other names"] for result in ranks[1]]
    assert [message.partition("it has ")[2] for message in messages] == ["['a', 'c'].", "['b', 'c']."]
    assert {result["too many"] for result in ranks[1]} == {
        "The model has 65 losses; several processes can share 64."
    }


def test_both_processes_have_the_same_outcome(ranks):
    """Losses of 1 but for one of 1 and 2, in another order; an infinite gradient in one; 3 and 4 seconds."""
    for result in ranks[1]:
        loss, losses, data_time, gradients_are_finite, _ = result["just enough"]
        assert (loss, len(losses), losses["0"], losses["63"]) == (64.5, 64, 1.5, 1.0)
        assert (data_time, gradients_are_finite) == (4.0, False)


def test_losses_of_any_type_and_number_add_up_in_float64():
    """In float32, 2^24 + 1 is 2^24."""
    losses = {
        "b": torch.tensor(2.0**24),
        "a": torch.tensor([1.0], requires_grad=True),
        "c": torch.tensor(0.5, dtype=torch.bfloat16),
        "d": torch.tensor(2.0**-20, dtype=torch.float64),
    }
    outcome = share_outcome(losses, [torch.ones(2)], 0.25)
    values = {"a": 1.0, "b": 2.0**24, "c": 0.5, "d": 2.0**-20}
    assert outcome == Outcome(sum(values.values()), values, 0.25, True, [])
    assert share_outcome({str(n): torch.tensor(1.0) for n in range(100)}, [], 0.0).loss == 100
    assert not share_outcome(losses, [torch.ones(2), torch.tensor([float("nan")])], 0.0).gradients_are_finite
