"""The kill harness: its parts by hand-made folders, and the real tool on a few short runs."""

import json
import random
import time
from collections import Counter

import pytest
import torch
from test_tools import run_tool

from rethink_pretrain.engine.reliability import all_survived, evidence, summarize
from rethink_pretrain.engine.reliability.aims import PLACES, Aim, draw_aim, strike
from rethink_pretrain.engine.reliability.trials import OUTCOMES
from rethink_pretrain.engine.reliability.victim import Victim


def write_checkpoint(path, value=1.0):
    torch.save({"model": {"weight": torch.full((1000,), value)}, "iteration": 3}, path)


class TestEvidence:
    def test_whole_checkpoints(self, tmp_path):
        write_checkpoint(tmp_path / "model_0000003.pth")
        content = (tmp_path / "model_0000003.pth").read_bytes()
        middle = len(content) // 2
        broken = {
            "cut": content[:middle],
            "empty": b"",
            "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        }
        for name, data in broken.items():
            (tmp_path / f"model_{name}.pth").write_bytes(data)
        expected = {"model_0000003.pth": True} | {f"model_{name}.pth": False for name in broken}
        assert evidence.checkpoints(tmp_path) == expected

    def test_weights_are_compared_bit_for_bit(self, tmp_path):
        write_checkpoint(tmp_path / "model_final.pth")
        weights = evidence.final_weights(tmp_path)
        assert evidence.same_weights(weights, weights)
        assert not evidence.same_weights({"weight": weights["weight"] * (1 + 1e-7)}, weights)
        assert not evidence.same_weights({}, weights) and not evidence.same_weights(None, weights)

    def test_rows(self, tmp_path):
        rows = [{"iteration": 0}, {"iteration": 1, "bbox/AP": 2.5}, {"iteration": 1}]
        lines = [json.dumps(row) for row in rows] + ['{"iteration": 2, "tot']
        (tmp_path / "metrics.json").write_text("\n".join(lines))
        found = evidence.metrics(tmp_path)
        assert evidence.repeated_iterations(found) == [1] and evidence.evaluations(found) == {1: 2.5}
        (tmp_path / "model_0000009.pth").touch()
        assert evidence.last_iteration(tmp_path) == 9

    def test_log(self):
        log = (
            "INFO: [Checkpointer] Loading from /a/model_0000009.pth ...\nINFO: Training from iteration 10:\n"
            "INFO: Starting training from iteration 0\nINFO: This run is finished: 60 iterations."
        )
        assert evidence.starts(log) == [10, 0, 60]
        assert evidence.loaded(log) == ["model_0000009.pth"]


class TestAims:
    def test_draws(self):
        draws = [draw_aim(random.Random(seed), "any", 10.0).after for seed in range(200)]
        assert 0 <= min(draws) < 1 and 9 < max(draws) <= 10
        saves = Counter(draw_aim(random.Random(seed), "save", 10.0).number for seed in range(200))
        assert set(saves) == set(range(1, 7))
        assert draw_aim(random.Random(3), "any", 5) == draw_aim(random.Random(3), "any", 5)

    @pytest.mark.parametrize(
        ("aim", "done"),
        [
            (Aim("any", 0.3), ["log", "save 1"]),
            (Aim("save", 0.0, 2), ["log", "save 1", "save 2"]),
            (Aim("evaluation", 0.0), ["log", "save 1", "save 2", "evaluation"]),
        ],
        ids=PLACES,
    )
    def test_a_process_is_killed_there(self, tmp_path, aim, done):
        folder = tmp_path / "run"

        def work():
            time.sleep(1)  # a run takes longer to start, and `strike` looks at the folder first
            folder.mkdir()
            for step in ("log", "save 1", "save 2", "evaluation", "end"):
                with (folder / "log.txt").open("a") as log:
                    log.write({"log": "Training from iteration 0:\n"}.get(step, ""))
                    log.write("Start inference on 9 batches\n" if step == "evaluation" else "")
                if step.startswith("save"):
                    (folder / f"model_{step[-1]}.pth.tmp").touch()
                (tmp_path / "done").open("a").write(f"{step}\n")
                # The last is long enough for a blow on any machine.
                time.sleep({"save 1": 0.5, "evaluation": 20}.get(step, 0.2))

        victim = Victim(work, ["x"], tmp_path / "said")
        assert strike(victim, folder, aim) is not None and not victim.alive
        found = (tmp_path / "done").read_text().split("\n")[:-1]
        # On a busy machine the blow may come late, and never early.
        assert found[: len(done) - 1] == done[:-1] and "end" not in found

    def test_a_process_that_ends_before_is_not_killed(self, tmp_path):
        victim = Victim(lambda: None, ["x"], tmp_path / "said")
        assert strike(victim, tmp_path / "run", Aim("any", 0.0)) is None
        assert victim.wait(10) == 0

    def test_what_a_process_says_and_its_status(self, tmp_path):
        def work():
            print("words")
            raise SystemExit(3)

        victim = Victim(work, ["x"], tmp_path / "said")
        assert victim.wait(60) == 3 and (tmp_path / "said").read_text() == "words\n"


def trial(outcome="identical", **values):
    session = {"place": "save", "killed_after": 1.0, "left_unfinished": [], "left_broken": []}
    session |= {"started_over": outcome == "started over"}
    rest = {"kills": 1, "repeated_iterations": 0, "same_evaluations": True, "accepted_broken": []}
    return {"outcome": outcome, **rest, "sessions": [session], **values}


def test_summary():
    part = {"repeatable": True, "trials": [trial(), trial("started over"), trial("differs")]}
    counts = summarize(part)
    assert [counts[key] for key in OUTCOMES] == [1, 1, 1, 0]
    assert counts["kills"] == counts["kills aimed at a save"] == 3
    assert not all_survived(part) and all_survived({"trials": [trial(), trial()]})
    assert not all_survived({"trials": [trial(accepted_broken=["model_final.pth"])]})
    assert not all_survived({"trials": [trial(repeated_iterations=1)]})


def test_the_tool(tmp_path):
    flags = ["--trials", "2", "--iterations", "12", "--json", str(tmp_path / "out.json")]
    done = run_tool("bench_reliability.py", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical" in done.stdout
    result = json.loads((tmp_path / "out.json").read_text())
    ours = result["contestants"]["ours"]
    assert ours["repeatable"] and [trial["outcome"] for trial in ours["trials"]] == ["identical"] * 2
    for one in ours["trials"]:
        *killed, last = one["sessions"]
        assert killed and all("killed_after" in session for session in killed[:1]) and last["status"] == 0
    assert result["session"]["versions"]["torch"] == torch.__version__


@pytest.mark.slow
def test_the_tool_with_the_hosts_trainer_and_costs(tmp_path):
    flags = ["--trials", "25", "--stock", "--cost", "--json", str(tmp_path / "out.json")]
    done = run_tool("bench_reliability.py", *flags, timeout=3600)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert summarize(result["contestants"]["ours"])["identical"] == 25
    stock = summarize(result["contestants"]["stock"])
    assert stock["undisturbed runs that agree"] == "2 of 2" and stock["identical"] < 25
    assert 0.5 < result["cost"]["cpu_ratio"] < 1.5


def test_wrong_numbers_are_one_line():
    done = run_tool("bench_reliability.py", "--iterations", "2")
    assert done.returncode == 2 and "--iterations 6 or more" in done.stderr
