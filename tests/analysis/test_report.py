"""What the page says of runs whose numbers the test has made up."""

import json
import math

import pytest
from made_runs import host_row, make_run
from test_page import NASTY, Parsed

from rethink_pretrain.analysis.page import Chart, Section, Table, Text, write_page
from rethink_pretrain.analysis.report import compare, spell, summary
from rethink_pretrain.analysis.runs import read_runs
from rethink_pretrain.errors import UserError

CHANCE = "With one run of each, a difference cannot be told from chance"


def blocks(sections, kind, title=""):
    return [
        b for section in sections if title in section.title for b in section.blocks if isinstance(b, kind)
    ]


def table(sections, title):
    (found,) = blocks(sections, Table, title)
    return found


def last_rows(folder):
    """The last evaluation of `folder` gets these metrics, too."""
    more = {
        "sem_seg/mIoU": 41.0,
        "sem_seg/IoU-sky": 88.0,
        "segm/AP": 36.5,
        "segm/AP-zebra": 61.0,
        "bbox/AR100": 50.0,
        "bbox/APs": math.nan,
        "bbox/AP75": 44.0,
        "bbox/AP50": 60.123,
        "bbox/AP-zebra": 70.0,
        "bbox/AP-t-shirt / top": 5.5,
        "rpn/num_pos_anchors": 5.0,
    }
    path = folder / "metrics.json"
    *rows, last = (json.loads(line) for line in path.read_text().splitlines())
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {**last, **more}]))
    return folder


@pytest.fixture
def runs(tmp_path):
    """Of 2 and 3 evaluations, the second without what `last_rows` adds."""
    scratch = last_rows(make_run(tmp_path / "scratch", aps=(10.0, 41.24)))
    return read_runs([scratch, make_run(tmp_path / "tuned", weights="R-50", aps=(15.0, 30.0, 40.76))])


class TestSummary:
    def test_one_run_of_each(self, runs):
        assert summary(runs, "bbox/AP") == (
            "Box AP: scratch (from random weights) ends at 41.2, and tuned (from R-50) ends at 40.8. "
            f"{CHANCE}; published differences between seeds on COCO are 0.2 to 0.4 AP."
        )

    def test_a_metric_of_one_run_alone(self, runs):
        """The differences between seeds are known of AP alone."""
        assert summary(runs, "bbox/AP50") == (
            "Box AP50: scratch (from random weights) ends at 60.1, and tuned (from R-50) has no value. "
            f"{CHANCE}."
        )

    def test_repeats(self, tmp_path):
        folders = [
            make_run(tmp_path / "a0", aps=(1.0, 41.0)),
            make_run(tmp_path / "a1", aps=(1.0, 41.31), SEED=2),
            make_run(tmp_path / "b0", aps=(1.0, 43.0), weights="w"),
        ]
        assert summary(read_runs(folders), "bbox/AP") == (
            "Box AP: a0 (from random weights) ends at 41.0, a1 (from random weights) ends at 41.3, and b0 "
            "(from w) ends at 43.0. Runs of one start and length differ by up to 0.3. No interval is "
            "computed here, so no difference is said to be more than chance."
        )

    def test_a_repeat_that_is_not_finished(self, tmp_path):
        rows = [{**host_row(99), "bbox/AP": 12.0}]
        folders = [make_run(tmp_path / "a"), make_run(tmp_path / "b", rows=rows)]
        words = summary(read_runs(folders), "bbox/AP")
        assert "differ by" not in words and CHANCE not in words and "No interval is computed" in words

    def test_not_yet_finished(self, tmp_path):
        rows = [{**host_row(99), "bbox/AP": 12.0}, {**host_row(119), "bbox/AP": math.nan}]
        folders = [
            make_run(tmp_path / "a", rows=rows),
            make_run(tmp_path / "b"),
            make_run(tmp_path / "c", config=False),
        ]
        words = summary(read_runs(folders), "bbox/AP")
        assert "a (from random weights) is at 12.0 after 100 of 200 iterations" in words
        assert "c (unknown start) is at 20.0 after 200 iterations, of how many is unknown" in words
        assert CHANCE not in words and "a difference can have several causes" in words


class TestSections:
    def test_runs(self, tmp_path, runs):
        found = table(compare(runs), "What the numbers say")
        assert found.headers[:4] == ("run", "start", "length", "box AP")
        assert found.headers[4:] == ("iterations", "images", "seed", "hours")
        assert found.rows == [
            ("scratch", "random", "200 iterations", 41.24, 200, 3200, 1, None),
            ("tuned", "R-50", "300 iterations", 40.76, 300, 4800, 1, None),
        ]
        paid = make_run(tmp_path / "paid", sessions=[{"train_seconds": 3600}, {"train_seconds": 850.0}])
        rows = table(compare([*runs, *read_runs([paid])]), "What the numbers say").rows
        assert rows[-1][-1] == 1.24

    def test_ap_at_equal_images(self, runs):
        found = table(compare(runs), "Box AP during training")
        assert found.headers == ("images seen", "scratch", "tuned")
        assert found.rows == [(1600, 10.0, 15.0), (3200, 41.24, 30.0)]

    def test_iterations_where_a_batch_is_unknown(self, tmp_path, runs):
        bare = read_runs([make_run(tmp_path / "bare", config=False)])
        sections = compare([*runs, *bare])
        found = table(sections, "Box AP during training")
        assert found.headers == ("iterations", "scratch", "tuned", "bare")
        assert found.rows == [(100, 10.0, 15.0, 10.0), (200, 41.24, 30.0, 20.0)]
        with pytest.raises(UserError, match="bare"):
            compare([*runs, *bare], axis="images")

    def test_never_evaluated_at_the_same_point(self, tmp_path):
        rows = [{**host_row(49), "bbox/AP": 1.0}]
        odd, other = make_run(tmp_path / "odd", rows=rows), make_run(tmp_path / "other")
        sections = compare(read_runs([odd, other]))
        assert blocks(sections, Table, "during training") == []
        (words,) = blocks(sections, Text, "during training")
        assert words.text == "No two runs were evaluated after the same number of images."

    def test_last_evaluation(self, runs):
        cells = {row[0]: row[1:] for row in table(compare(runs), "Last evaluation").rows}
        assert list(cells) == [
            *("box AP", "box AP50", "box AP75", "box AP, small objects", "box AR100"),
            *("mask AP", "semantic mIoU"),
        ]
        assert cells["box AP"] == (41.24, 40.76) and cells["box AP50"] == (60.12, None)
        assert math.isnan(cells["box AP, small objects"][0])

    def test_categories(self, runs):
        sections = compare(runs)
        titles = [section.title for section in sections if "by category" in section.title]
        assert titles == ["Box AP by category", "Mask AP by category", "Semantic IoU by category"]
        assert table(sections, "Box AP by category").rows == [
            ("t-shirt / top", 5.5, None),
            ("zebra", 70.0, None),
        ]

    def test_what_was_compared(self, runs):
        keys, facts = blocks(compare(runs), Table, "What was compared")
        assert ("MODEL.WEIGHTS", '""', "R-50") in keys.rows and ("SOLVER.MAX_ITER", "200", "300") in keys.rows
        assert ("initial weights", "none", "R-50") in facts.rows and ("seed", "1", "1") in facts.rows

    def test_no_losses(self, tmp_path):
        rows = [{"iteration": 9, "bbox/AP": 1.0}]
        runs = read_runs([make_run(tmp_path / name, rows=rows) for name in "ab"])
        assert blocks(compare(runs), Text, "Training loss") == [Text("The metrics hold no total_loss.")]

    def test_warning_first(self, tmp_path, runs):
        assert "Warning" not in compare(runs)[0].title
        other = read_runs([make_run(tmp_path / "other", SOLVER__BASE_LR=0.5)])
        warning = compare([*runs, *other])[0]
        assert warning.title.startswith("Warning")
        assert blocks([warning], Table)[0].rows == [
            ("SOLVER.BASE_LR is 0.02 in scratch and tuned, 0.5 in other",)
        ]

    def test_refusals(self, runs):
        with pytest.raises(UserError, match="two or more"):
            compare(runs[:1])
        with pytest.raises(UserError, match="measured bbox/AP, segm/AP, sem_seg/mIoU"):
            compare(runs, "bbox/ap")


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("bbox/AP", "box AP"),
        ("segm/APl", "mask AP, large objects"),
        ("tta/keypoints/AP75", "tta keypoint AP75"),
        ("panoptic_seg/PQ", "panoptic PQ"),
    ],
)
def test_words(metric, words):
    assert spell(metric) == words


def test_the_page(tmp_path, runs):
    """Whatever runs, weights and categories are called, they stay text."""
    nasty = make_run(tmp_path / NASTY.replace("/", "$"), weights=NASTY, SEED=3)
    path = nasty / "metrics.json"
    evaluation = {"iteration": 200, "bbox/AP": 5.0, f"bbox/AP-{NASTY}": 1.0}
    path.write_text(path.read_text() + json.dumps(evaluation) + "\n")
    runs = [*runs, *read_runs([nasty])]
    sections = compare(runs)
    write_page(tmp_path / "page.html", "t", sections)
    page = Parsed((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert len(page.all("script")) == 1
    assert [image["alt"] for image in page.all("img")] == [chart.caption for chart in blocks(sections, Chart)]
    tables = blocks(sections, Table)
    assert len(page.all("table")) == len(tables) == 8
    assert len(page.all("td")) == sum(len(found.rows) * len(found.headers) for found in tables)
    headings = [section.title for section in sections if isinstance(section, Section)]
    assert [word for word in page.words if word in headings] == headings
    assert NASTY in page.words and nasty.name in page.words
