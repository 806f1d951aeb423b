"""What the page says of runs whose numbers the test has made up."""

import json
import math

import pytest
from made_runs import host_row, make_published, make_run, make_study
from test_page import NASTY, Parsed

from rethink_pretrain.analysis.comparison import compare_arms
from rethink_pretrain.analysis.page import Chart, Columns, Section, Table, Text, write_page
from rethink_pretrain.analysis.report import as_text, check_measured, report, subtitle, title
from rethink_pretrain.analysis.runs import read_runs
from rethink_pretrain.errors import UserError


def titles(sections):
    return [section.title for section in sections]


def blocks(sections, kind, title=""):
    found = [block for section in sections if title in section.title for block in section.blocks]
    found = [item for block in found for item in (block.charts if isinstance(block, Columns) else [block])]
    return [block for block in found if isinstance(block, kind)]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return read_runs(make_study(tmp_path_factory.mktemp("study"), lengths=(1, 6), seeds=(0, 1, 2)))


@pytest.fixture(scope="module")
def sections(study):
    return report(study, compare_arms(study))


class TestSections:
    def test_the_answer_comes_first(self, study, sections):
        comparison = compare_arms(study)
        first = sections[0].blocks[0]
        assert first == Text(comparison.verdict, large=True) and "pretrained.pth" in first.text
        assert titles(sections) == [
            *("The answer", "Box AP by length of training", "By metric", "By category", "At equal cost"),
            *("Samples and cost", "Training loss and validation", "The runs"),
            "Where the numbers come from",
        ]

    def test_figures(self, sections):
        captions = [chart.caption for chart in blocks(sections, Chart)]
        assert [caption.split(",")[0].split(":")[0] for caption in captions] == [
            "Box AP against images seen",
            "Box AP at the end of each length",
            "Box AP at the end of each length against the pixels that it took",
            "Images",
            "Total training loss against images seen",
            "Box AP against the mean training loss since the evaluation before",
        ]

    def test_curves_are_means_of_seeds(self, study, sections):
        """A line for each arm and length, of which the last point is the mean of three last values."""
        chart = blocks(sections, Chart)[0]
        ends = [line.get_ydata()[-1] for line in chart.figure.axes[0].lines if len(line.get_xdata()) > 1]
        cells = compare_arms(study).cells.values()
        assert sorted(ends) == pytest.approx(sorted(sum(cell.values) / 3 for cell in cells))

    def test_costs_charge_pre_training(self, sections):
        """6000 steps of 90 kpx, and 2.6e8 px before."""
        alone, charged = blocks(sections, Chart)[2].figure.axes
        by_panel = [
            {max(line.get_xdata()) for line in axes.lines if len(line.get_xdata())}
            for axes in (alone, charged)
        ]
        assert by_panel == [{5.4e8}, {5.4e8, 8e8}]

    def test_runs(self, study, sections):
        (table,) = blocks(sections, Table, "The runs")
        assert len(table.rows) == 12 == len(study)
        row = dict(zip(table.headers, table.rows[0], strict=True))
        assert row == {
            "run": "random_1x_seed0",
            "start": "random",
            "length": "1x",
            "iterations": 1000,
            "box AP": row["box AP"],
            "images": 16_000,
            "seed": 0,
            "hours": 0.139,
            "ended": "finished",
        }

    def test_a_column_for_each_arm(self, sections):
        keys, facts, commands = blocks(sections, Table, "Where the numbers come from")
        assert keys.headers == ("key", "random", "pretrained.pth")
        assert ("RETHINK.SCHEDULE", "1x; 6x", "1x; 6x") in keys.rows
        assert ("MODEL.WEIGHTS", '""', "output/pretrained.pth") in keys.rows
        assert "OUTPUT_DIR" not in {row[0] for row in keys.rows}
        assert ("torch", "2.14.1", "2.14.1") in facts.rows
        assert len(commands.rows) == 12 and "--config-file" in commands.rows[0][1]

    def test_left_out(self, tmp_path, study):
        rows = [host_row(99) | {"bbox/AP": 12.0}]
        short = make_run(tmp_path / "short", rows=rows)
        runs = [*study, *read_runs([short])]
        sections = report(runs, compare_arms(runs), left_out=[("other", "it has no metrics yet")])
        (table,) = blocks(sections, Table, "What was left out")
        assert [row[0] for row in table.rows] == ["short", "other"]
        assert "Dashed" in blocks(sections, Chart)[0].caption

    def test_warning_first(self, tmp_path, study):
        runs = [*study, *read_runs([make_run(tmp_path / "other", SOLVER__BASE_LR=0.5)])]
        warning = report(runs, compare_arms(runs))[0]
        assert warning.title.startswith("Warning")
        assert any("SOLVER.BASE_LR is 0.02 in" in row[0] for row in blocks([warning], Table)[0].rows)


class TestLittle:
    def test_nothing_finished(self, tmp_path):
        rows = [host_row(99) | {"bbox/AP": 12.0}]
        runs = read_runs([make_run(tmp_path / name, rows=rows) for name in "ab"])
        runs[1] = runs[1]._replace(arm="w")
        sections = report(runs, compare_arms(runs))
        assert titles(sections)[:3] == ["The answer", "The runs", "What was left out"]
        (chart,) = blocks(sections, Chart)
        assert [line.get_linestyle() for line in chart.figure.axes[0].lines][:2] == ["--", "--"]
        assert as_text(compare_arms(runs)) == compare_arms(runs).verdict

    def test_metrics_alone(self, tmp_path):
        paths = [
            make_published(tmp_path / f"{n}.json", length=400, period=100, top=t)
            for n, t in zip("ab", (30, 31))
        ]
        runs = read_runs(paths, ["random", "tuned"])
        sections = report(runs, compare_arms(runs))
        assert "against iterations" in blocks(sections, Chart)[0].caption
        (words,) = blocks(sections, Text, "Where the numbers come from")
        assert words.text == "Without a config.yaml, so that their recipes are unknown: a; b."
        assert "400 iterations" in blocks(sections, Table, "by length")[0].headers
        with pytest.raises(UserError, match="take iterations"):
            report(runs, compare_arms(runs), "images")

    def test_no_losses(self, tmp_path):
        runs = read_runs(
            [make_run(tmp_path / n, rows=[{"iteration": 200, "bbox/AP": 1.0}], weights=n) for n in "ab"]
        )
        assert "Training loss and validation" not in titles(report(runs, compare_arms(runs, reference="a")))

    def test_refusals(self, tmp_path):
        runs = read_runs([make_run(tmp_path / "a")])
        with pytest.raises(UserError, match="two or more"):
            check_measured(runs, "bbox/AP")
        with pytest.raises(UserError, match=r"No run has a value of 'bbox/ap'; they measured bbox/AP\."):
            check_measured(runs, "bbox/ap")
        rows = [{"iteration": 3, "bbox/AP": math.nan}]
        with pytest.raises(UserError, match="they measured bbox/AP"):
            check_measured(read_runs([make_run(tmp_path / "b", rows=rows)]), "bbox/AP")


def test_words_around(tmp_path, study):
    comparison = compare_arms(study)
    assert title(comparison) == "Random weights against pretrained.pth"
    assert title(comparison._replace(arms=["random"])) == "Comparison of runs"
    paths = [make_run(tmp_path / n, DATASETS__TRAIN=["coco"], DATASETS__TEST=["val"]) for n in "ab"]
    assert subtitle(read_runs(paths)) == "2 runs, trained on coco, evaluated on val"
    lines = as_text(comparison).splitlines()
    assert lines[0] == comparison.verdict and lines[2].split() == ["start", "1x", "6x"]
    assert "pretrained.pth" in lines[4] and "41.9" in lines[4]


def test_the_page(tmp_path, study):
    """Whatever runs, weights and categories are called, they stay text."""
    nasty = make_run(tmp_path / NASTY.replace("/", "$"), weights=NASTY, SEED=3)
    path = nasty / "metrics.json"
    evaluation = {"iteration": 200, "bbox/AP": 5.0, f"bbox/AP-{NASTY}": 1.0}
    path.write_text(path.read_text() + json.dumps(evaluation) + "\n")
    runs = [*study, *read_runs([nasty])]
    sections = report(runs, compare_arms(runs, reference="random"))
    write_page(tmp_path / "page.html", "t", sections)
    page = Parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert len(page.all("script")) == 1
    assert [image["alt"] for image in page.all("img")] == [chart.caption for chart in blocks(sections, Chart)]
    tables = blocks(sections, Table)
    assert len(page.all("table")) == len(tables)
    assert len(page.all("td")) == sum(len(found.rows) * len(found.headers) for found in tables)
    headings = [section.title for section in sections if isinstance(section, Section)]
    assert [word for word in page.words if word in headings] == headings
    assert NASTY in page.words and nasty.name in page.words
