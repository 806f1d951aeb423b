"""The measuring stick: its arithmetic by hand, that both contestants do the same work, the real tool."""

import json
import mmap
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from test_tools import run_tool

from rethink_pretrain.analysis.bench import Bar, benchmark_table, ratio_bars, read_benchmarks, short
from rethink_pretrain.analysis.bench_figure import plot_ratios
from rethink_pretrain.engine.benchmark import PARTS, Settings, machine, measure
from rethink_pretrain.engine.benchmark.made import HEIGHT, OBJECTS, WIDTH, make_detections, make_document
from rethink_pretrain.engine.benchmark.masks import equal_pixels, make_instances
from rethink_pretrain.engine.benchmark.memory import made_records, proportional_mb, touch
from rethink_pretrain.engine.benchmark.rows import (
    by_turns,
    limit_row,
    speed_row,
    time_by_turns,
    unmeasured_row,
)
from rethink_pretrain.errors import UserError


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(tmp_path, REPOSITORY).tiny()


class TestRows:
    def test_turns(self):
        calls = []
        contestants = {name: lambda name=name: calls.append(name) for name in "ab"}
        seconds = time_by_turns(contestants, rounds=2, warm_up=1)
        assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}
        # The order turns around, and the first pair does not count.
        assert calls in (["a", "b", "b", "a", "a", "b"], ["b", "a", "a", "b", "b", "a"])

    def test_a_spent_budget_ends_the_rounds(self):
        values = by_turns({"a": lambda: 1.0, "b": lambda: 2.0}, rounds=5, warm_up=2, budget=0.0)
        assert values == {"a": [1.0], "b": [2.0]}

    def test_ratios_are_of_pairs(self):
        row = speed_row("x", {"stock": [2.0, 9.0, 4.0], "ours": [1.0, 3.0, 4.0]}, work=8, unit="images/s")
        assert row["ratios"]["ours"]["values"] == [2.0, 3.0, 1.0]
        # By hand: medians of (2, 3, 1), (1, 3, 4) and (2, 9, 4); quartiles halfway to the neighbours.
        assert (row["ratios"]["ours"]["median"], row["ratios"]["ours"]["quartiles"]) == (2.0, [1.5, 2.5])
        assert row["per_second"] == {"stock": 2.0, "ours": pytest.approx(8 / 3)}
        assert row["seconds"]["stock"]["quartiles"] == [3.0, 6.5]

    def test_without_stock_there_is_no_ratio(self):
        assert speed_row("x", {"ours": [1.0]})["ratios"] == {}

    def test_a_single_round(self):
        assert speed_row("x", {"stock": [3.0], "ours": [2.0]})["ratios"]["ours"]["quartiles"] == [1.5, 1.5]


ROWS = [
    speed_row("loader", {"stock": [4.0], "ours": [1.0]}, work=8, unit="images/s", bars={"ours": 2.5}),
    speed_row("AP", {"stock": [30.0], "a": [3.0], "b": [0.5]}, unit="evaluations/s", bars={"a": 8.0}),
    limit_row("--help", "s", {"ours": [0.25], "stock": [4.0]}, {"ours": 0.3}),
    unmeasured_row("norm", "no GPU"),
]


class TestTableAndFigure:
    def test_table(self):
        assert benchmark_table(ROWS)[2:] == [
            "| loader: ours | 2 images/s | 8 images/s | 4 x | 2.5 x |",
            "| AP: a | 30 s | 3 s | 10 x | 8 x |",
            "| AP: b | 30 s | 0.5 s | 60 x |  |",
            "| --help: ours | 4 s | 0.25 s |  | at most 0.3 s |",
            "| norm | | not measured: no GPU | | |",
        ]

    def test_only_what_has_something_to_reach(self):
        lines = [line for line in benchmark_table(ROWS) if not line.startswith("| AP: b")]
        assert benchmark_table(ROWS, only_bars=True) == lines

    def test_files(self, tmp_path):
        for name, rows in (("b", ROWS[2:]), ("a", ROWS[:2])):
            (tmp_path / f"{name}.json").write_text(json.dumps({"rows": rows}))
        assert benchmark_table(read_benchmarks(tmp_path)) == benchmark_table(ROWS)

    def test_bars(self):
        assert ratio_bars(ROWS)[:2] == [
            Bar("loader", 4.0, (4.0, 4.0), 2.5),
            Bar("AP: a", 10.0, (10.0, 10.0), 8.0),
        ]

    @pytest.mark.parametrize(
        ("value", "words"),
        [(12345, "12,300"), (999.6, "1,000"), (123.4, "123"), (12.34, "12.3"), (0.01234, "0.0123")],
    )
    def test_short(self, value, words):
        assert short(value) == words

    def test_figure(self, tmp_path):
        plot_ratios(ratio_bars(ROWS), tmp_path / "ratios.png", "made")
        assert (tmp_path / "ratios.png").stat().st_size > 10_000
        with pytest.raises(UserError, match="nothing was measured beside stock"):
            plot_ratios([], tmp_path / "none.png")


class TestMadeData:
    def test_form(self):
        document = make_document(3)
        assert len(document["annotations"]) == 3 * OBJECTS
        for annotation in document["annotations"]:
            points = np.reshape(annotation["segmentation"][0], (-1, 2))
            assert (points >= 0).all() and (points <= (WIDTH, HEIGHT)).all()
            x, y, width, height = annotation["bbox"]
            assert [x, y] == points.min(0).tolist() and min(width, height) >= 2
            assert 0 < annotation["area"] <= width * height
        assert document == make_document(3)

    def test_detections(self):
        from pycocotools import mask as mask_util

        detections = make_detections(make_document(2), per_image=6)
        assert len(detections) == 12 and len({d["score"] for d in detections}) == 12
        for detection in detections:
            box = mask_util.toBbox(detection["segmentation"])
            assert np.abs(box - detection["bbox"]).max() < 4  # a sharp point covers no pixel

    def test_records(self):
        records = list(made_records(2))
        assert [len(record["annotations"]) for record in records] == [OBJECTS] * 2
        assert touch(records[0])["sum"] == sum(sum(a["bbox"]) for a in records[0]["annotations"])


def test_memory_counts_what_a_process_holds():
    """Fresh pages of the system: an array might get some that the process held before."""
    before = proportional_mb()
    with mmap.mmap(-1, 50_000_000) as block:
        for _ in range(50):
            block.write(bytes(1_000_000))
        held = proportional_mb() - before
    assert 40 < held < 60


def test_memory_counts_no_files(tmp_path):
    """Libraries in memory are files, too, and shared with programs that come and go."""
    path = tmp_path / "file"
    path.write_bytes(bytes(50_000_000))
    before = proportional_mb()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as block:
        assert sum(block[::4096]) == 0
        assert proportional_mb() - before < 10


def test_memory_of_a_child_that_ended():
    """Nobody has waited for it yet: it is still listed among the children."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert proportional_mb() > 0


def test_host_masks_are_ours():
    assert equal_pixels([make_instances(32, seed, torch.device("cpu")) for seed in range(2)]) >= 0.999


def test_machine():
    assert machine()["cores"] >= 1 and machine()["detectron2"].startswith("0.")


def test_unknown_part(settings):
    with pytest.raises(UserError, match="Choose from startup"):
        measure("speed", settings)


@pytest.mark.parametrize("part", ["loader", "eval", "masks", "layers", "subset", "norm"])
def test_parts(settings, part):
    """Each asserts by itself that stock and ours come to the same."""
    result = measure(part, settings)
    assert json.loads(json.dumps(result)) == result
    assert result["part"] == part and result["session"]["versions"]["torch"] == torch.__version__
    assert result["rows"]
    for row in result["rows"]:
        if "not_measured" in row:
            continue
        rounds = {len(found["values"]) for found in row["seconds"].values()}
        assert len(rounds) == 1 and "stock" in row["seconds"] and row["ratios"]
        assert set(row["bars"]) <= set(row["ratios"])


def test_largest_differences_of_ap(settings):
    *rows, _ = measure("eval", settings)["rows"]
    assert [row["what"].partition(",")[0] for row in rows] == [
        f"{kind} of {name}" for name in ("boxes", "masks") for kind in ("evaluator", "COCO AP")
    ]
    for row in rows:
        assert {"faster-coco-eval", "evaluator, faster-coco-eval"} <= set(row["largest_difference"])
        assert max(row["largest_difference"].values()) <= 1e-12
        assert 0.01 < row["numbers"][0] < 0.99


def test_training_steps_of_the_toy_config(settings):
    from rethink_pretrain.engine.benchmark import train

    toy = train._cpu_workloads(settings)[0]
    (row,) = train._measure(settings, toy._replace(images=2))
    stock, ours = row["losses"]["stock"], row["losses"][train.PLAIN]
    assert set(stock) == {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"}
    assert ours == pytest.approx(stock, rel=1e-3, abs=1e-6)
    assert set(row["ratios"]) == {train.PLAIN, train.FAST}


def test_stock_in_fp16_has_a_row_of_its_own(settings, monkeypatch):
    """As on a GPU: there both of the host's contestants run."""
    from contextlib import contextmanager

    from rethink_pretrain.engine.benchmark import train

    class Fake:
        def __init__(self, name):
            self.seconds = {"stock": 6.0, "stock AMP": 4.0, train.PLAIN: 3.0, train.FAST: 2.0}[name]

        def call(self, method, *args):
            return self.seconds if method == "step" else {}

    @contextmanager
    def started(configs, register):
        yield {name: Fake(name) for name in configs}

    monkeypatch.setattr(train.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(train, "train_config", lambda *args: None)
    monkeypatch.setattr(train, "started", started)
    monkeypatch.setattr(train, "check_losses", lambda *args: {})
    workload = train._cpu_workloads(settings)[0]._replace(title="steps", bars={train.FAST: 2.5})
    whole, amp = train._measure(settings, workload)
    assert {name: ratio["median"] for name, ratio in whole["ratios"].items()} == {
        train.PLAIN: 2,
        train.FAST: 3,
    }
    assert amp["ratios"][train.FAST]["median"] == 2 and amp["bars"] == {train.FAST: 1.5}
    assert not [line for line in benchmark_table([whole, amp]) if "AMP" in line]


def test_other_losses_stop_the_benchmark():
    from rethink_pretrain.engine.benchmark.train import compare_losses

    with pytest.raises(AssertionError, match="loss_cls"):
        compare_losses({"loss_cls": 1.0}, {"loss_cls": 1.01})
    with pytest.raises(AssertionError, match="loss_mask"):
        compare_losses({"loss_cls": 1.0, "loss_mask": 1.0}, {"loss_cls": 1.0})


def test_what_goes_wrong_in_a_contestant_is_told(settings, short_cfg):
    from rethink_pretrain.engine.benchmark import contestants

    register = ("made_for_a_contestant", settings.folder / "missing.json", settings.folder)
    short_cfg.MODEL.DEVICE = "nowhere"
    with (
        pytest.raises(RuntimeError, match="nowhere"),
        contestants.started({"a": (short_cfg, False)}, register),
    ):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("part", [part for part in PARTS if part in ("startup", "memory", "train")])
def test_slow_parts(settings, part):
    assert measure(part, settings)["rows"]


class TestTool:
    def test_json_and_figure(self, tmp_path):
        json_file, figure = tmp_path / "out" / "masks.json", tmp_path / "masks.png"
        flags = ["--against", "stock", "--tiny", "--json", str(json_file), "--figure", str(figure)]
        done = run_tool("benchmark.py", "masks", *flags)
        assert done.returncode == 0, done.stderr
        assert "| mask targets, 64 RoIs: ours |" in done.stdout
        assert json.loads(json_file.read_text())["machine"]["cores"] >= 1 and figure.exists()

    def test_the_parts_are_those_of_the_engine(self):
        (names,) = re.findall(r"\{(.*?),all\}", run_tool("benchmark.py", "--help").stdout)[:1]
        assert set(names.split(",")) == set(PARTS)

    def test_a_figure_needs_stock(self):
        done = run_tool("benchmark.py", "masks", "--figure", "x.png")
        assert done.returncode == 2 and "--against stock" in done.stderr

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--json", "."], "--json: . is a folder. Name a file in it."),
            (
                ["--against", "stock", "--figure", "a.xyz"],
                "--figure: a.xyz ends in none of .png, .pdf, .svg.",
            ),
        ],
    )
    def test_an_output_that_cannot_be(self, flags, message):
        done = run_tool("benchmark.py", "norm", *flags)
        assert done.returncode == 1 and done.stderr == f"error: {message}\n"

    @pytest.mark.parametrize("flags", [["--steps", "0"], ["--images-per-batch", "0"]])
    def test_counts_are_positive(self, flags):
        done = run_tool("benchmark.py", "train", *flags)
        assert done.returncode == 2 and "are 1 or more" in done.stderr

    @pytest.mark.parametrize("flag", ["--json", "--figure"])
    def test_a_place_that_cannot_be_written_is_said_before_anything_is_measured(self, tmp_path, flag):
        (tmp_path / "file").touch()
        place = tmp_path / "file" / "below.png"
        done = run_tool("benchmark.py", "masks", "--against", "stock", flag, str(place))
        assert done.returncode == 1 and "Measuring" not in done.stderr
        assert f"error: {flag}: {place.parent} cannot be made" in done.stderr
        assert "Traceback" not in done.stderr
