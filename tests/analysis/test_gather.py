"""What a command line names."""

import pytest
from made_runs import make_published, make_run

from rethink_pretrain.analysis.gather import gather
from rethink_pretrain.errors import UserError


def names(words, metric="bbox/AP"):
    runs, left_out = gather([str(word) for word in words], metric)
    return [(run.name, run.arm) for run in runs], left_out


def test_a_folder_of_runs(tmp_path):
    """Two levels deep; what has no metrics yet, or was never evaluated, is left out by name."""
    make_run(tmp_path / "study" / "1x" / "a")
    make_run(tmp_path / "study" / "b", weights="w.pth")
    make_run(tmp_path / "study" / "classifier", rows=[{"iteration": 3, "top1": 70.0}])
    make_run(tmp_path / "study" / "empty", rows=[])
    runs, left_out = names([tmp_path / "study"])
    assert runs == [("a", "random"), ("b", "w.pth")]
    assert [reason for _, reason in left_out] == ["it has no metrics yet", "it never measured bbox/AP"]
    assert left_out[0].name.endswith("study/empty") and left_out[1].name == "classifier"


def test_named_arms(tmp_path):
    scratch = make_published(tmp_path / "x.json", length=200, period=100)
    runs = (
        make_run(tmp_path / "runs" / "one", config=False),
        make_run(tmp_path / "runs" / "two", config=False),
    )
    found, _ = names([f"random={scratch}", f"our own={runs[0].parent}"])
    assert found == [("x", "random"), ("one", "our own"), ("two", "our own")]


def test_a_path_with_a_sign(tmp_path, monkeypatch):
    """What exists is a path: lr=1 as a whole, and beside a folder that is called so."""
    make_run(tmp_path / "lr=1")
    make_run(tmp_path / "out" / "b=2")
    monkeypatch.chdir(tmp_path)
    assert names(["lr=1", "out/b=2"])[0] == [("lr=1", "random"), ("b=2", "random")]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("=x", "no ARM=RUN"),
        ("x=", "no ARM=RUN"),
        ("nowhere", "does not exist"),
        ("a=nowhere", "does not exist"),
    ],
)
def test_mistakes(tmp_path, monkeypatch, word, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        gather([word], "bbox/AP")


def test_a_folder_without_runs(tmp_path):
    with pytest.raises(UserError, match="No runs at or below"):
        gather([str(tmp_path)], "bbox/AP")


def test_nothing_measured_is_for_the_comparison_to_say(tmp_path):
    make_run(tmp_path / "a")
    assert names([tmp_path], "bbox/ap") == ([("a", "random")], [])
