"""Signals behind a step and within an evaluation, in one process and in two."""

import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest
from two_processes import run_on_two_ranks

from rethink_pretrain.engine.interruption import Interruption, Mailbox
from rethink_pretrain.evaluation import with_progress

ITERATION, MAX_ITER = 3, 10


class Saves:
    """A checkpointer that remembers what it was asked for."""

    def __init__(self):
        self.calls = []

    def save(self, name, iteration):
        self.calls.append((name, iteration))

    def wait(self):
        self.calls.append("waited")


def listening(iteration: int = ITERATION) -> tuple[Interruption, Saves]:
    hook = Interruption(saves := Saves())
    hook.trainer = SimpleNamespace(iter=iteration, max_iter=MAX_ITER, ended="")
    hook.before_train()
    return hook, saves


@pytest.fixture
def handlers():
    """Those of this process are what they were, whatever a test leaves."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.getsignal(number) for number in numbers}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


def evaluation(batches, at=lambda batch: None):
    """An evaluation whose loop does `at(batch)` with each; its result is what it has seen."""

    def evaluate():
        seen.clear()
        for batch in with_progress(batches, "Evaluating"):
            seen.append(batch)
            at(batch)
        return {"seen": list(seen)}

    seen: list[int] = []
    evaluate.seen = seen
    return evaluate


def send(number: int) -> None:
    os.kill(os.getpid(), number)


class TestOneProcess:
    @pytest.mark.parametrize(
        ("number", "error", "code"),
        [
            (signal.SIGTERM, SystemExit, 143),
            (signal.SIGUSR1, SystemExit, 143),
            (signal.SIGINT, KeyboardInterrupt, None),
        ],
    )
    def test_a_step_is_saved(self, handlers, number, error, code):
        hook, saves = listening()
        hook.after_step()
        send(number)
        with pytest.raises(error) as raised:
            hook.after_step()
        assert getattr(raised.value, "code", None) == code
        assert saves.calls == [("model_0000003", 3), "waited"]

    def test_an_evaluation_without_a_signal(self, handlers):
        hook, saves = listening()
        assert hook.guard(evaluation(range(4)))() == {"seen": [0, 1, 2, 3]}
        assert saves.calls == []

    @pytest.mark.parametrize("at", [0, 2, 4])
    def test_an_evaluation_is_left_behind_the_batch(self, handlers, at):
        hook, saves = listening()
        evaluate = evaluation(range(5), lambda batch: send(signal.SIGTERM) if batch == at else None)
        with pytest.raises(SystemExit, match="143"):
            hook.guard(evaluate)()
        assert evaluate.seen == list(range(at + 1))
        assert saves.calls == [("model_0000003", 3), "waited"]

    def test_the_last_evaluation_saves_nothing_and_lets_the_other_hooks_end(self, handlers):
        hook, saves = listening(MAX_ITER - 1)
        hook.trainer.ended = "finished"
        send(signal.SIGTERM)
        hook.after_step()  # what is left is the evaluation
        evaluate = evaluation(range(5))
        assert hook.guard(evaluate)() == {} and evaluate.seen == []
        assert hook.trainer.ended == "interrupted" and saves.calls == []
        with pytest.raises(SystemExit, match="143"):
            hook.after_train()
        assert signal.getsignal(signal.SIGTERM) == handlers[signal.SIGTERM]

    def test_a_second_ctrl_c_ends_at_once(self, handlers):
        _, saves = listening()
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert saves.calls == []

    def test_a_loop_that_fails_does_not_end_by_a_signal(self, handlers):
        hook, _ = listening()

        def fail(batch):
            send(signal.SIGTERM)
            raise KeyError(batch)

        with pytest.raises(KeyError):
            hook.guard(evaluation(range(3), fail))()

    def test_outside_the_guard_nobody_looks(self, handlers):
        listening()
        send(signal.SIGTERM)
        assert evaluation(range(3))() == {"seen": [0, 1, 2]}

    def test_a_mailbox_without_a_store_is_empty(self):
        mailbox = Mailbox()
        mailbox.post(15)
        assert mailbox.read() == 0


# What follows runs in both processes, which have different numbers of batches.


def describe(hook: Interruption, saves: Saves, evaluate) -> dict:
    """How a guarded evaluation came out."""
    try:
        ended = hook.guard(evaluate)()
    except SystemExit as error:
        ended = error.code
    except KeyboardInterrupt:
        ended = "KeyboardInterrupt"
    finally:
        hook.after_train()
    return {"ended": ended, "seen": len(evaluate.seen), "saves": saves.calls}


def undisturbed(rank: int) -> dict:
    return describe(*listening(), evaluation(range(2 + rank)))


def signal_to_one(rank: int) -> dict:
    """To the second process, which then waits for the first, in the middle of a long loop."""
    hook, saves = listening()

    def at(batch):
        time.sleep(0.02)
        if rank == 1 and batch == 3:
            send(signal.SIGTERM)

    return describe(hook, saves, evaluation(range(1500), at))


def signal_to_the_one_that_waits(rank: int) -> dict:
    """The first process is through when it gets the signal."""
    hook, saves = listening()
    if rank == 0:
        timer = threading.Timer(0.5, send, (signal.SIGINT,))
        timer.start()
    return describe(hook, saves, evaluation(range(1 if rank == 0 else 1500), lambda batch: time.sleep(0.02)))


def second_ctrl_c_to_the_one_that_waits(rank: int) -> float:
    """Seconds until it was out of the evaluation, which takes the other one 4."""
    hook, _ = listening()
    if rank == 0:
        Mailbox.post, post = lambda *_: None, Mailbox.post  # or the other would come soon
        for seconds in (0.3, 0.6):
            threading.Timer(seconds, send, (signal.SIGINT,)).start()
    begin = time.monotonic()
    out = describe(hook, Saves(), evaluation(range(1 if rank == 0 else 200), lambda batch: time.sleep(0.02)))
    if rank == 0:
        Mailbox.post = post
        assert out["ended"] == "KeyboardInterrupt"
    return time.monotonic() - begin


def signal_to_one_behind_a_step(rank: int) -> list:
    before = undisturbed(rank)
    hook, saves = listening()
    hook.after_step()
    if rank == 1:
        send(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"):
        hook.after_step()
    hook.after_train()
    return [before, saves.calls]


SAVED = [("model_0000003", 3), "waited"]


class TestTwoProcesses:
    def test_behind_a_step(self, tmp_path):
        first, second = run_on_two_ranks(signal_to_one_behind_a_step, tmp_path)
        # An evaluation before it, undisturbed. The checkpointer of the second process would not write.
        assert first == [{"ended": {"seen": [0, 1]}, "seen": 2, "saves": []}, SAVED]
        assert second == [{"ended": {"seen": [0, 1, 2]}, "seen": 3, "saves": []}, SAVED]

    def test_a_signal_to_one_ends_the_loop_of_both(self, tmp_path):
        first, second = run_on_two_ranks(signal_to_one, tmp_path)
        assert second == {"ended": 143, "seen": 4, "saves": SAVED}
        assert (first["ended"], first["saves"]) == (143, SAVED)
        assert first["seen"] < 1000  # of 1500, which take 30 s

    def test_a_signal_to_one_that_waits(self, tmp_path):
        first, second = run_on_two_ranks(signal_to_the_one_that_waits, tmp_path)
        assert first == {"ended": "KeyboardInterrupt", "seen": 1, "saves": SAVED}
        assert second["ended"] == "KeyboardInterrupt" and 1 < second["seen"] < 1000

    def test_a_second_ctrl_c_does_not_wait(self, tmp_path):
        first, second = run_on_two_ranks(second_ctrl_c_to_the_one_that_waits, tmp_path)
        assert first < second
