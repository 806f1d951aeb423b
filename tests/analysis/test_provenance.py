"""Facts from a run.json of the form that our runs write."""

from made_runs import make_run

from rethink_pretrain.analysis.provenance import describe_origin
from rethink_pretrain.analysis.runs import read_run

SESSION = {
    "command": ["train_net.py", "--config-file", "a b.yaml"],
    "commit": "0123456789abcdef+",
    "versions": {"python": "3.11.7", "torch": "2.14.1"},
    "hardware": {"gpus": ["H100", "H100"], "processes": 2, "cpu_cores": 16},
    "data": [{"name": "own_train", "images": 1200, "instances": 9000, "digest": "f" * 64}, {"name": "coco"}],
    "weights": {"sha256": "a" * 64},
    "ended": "interrupted",
}


def test_of_ours(tmp_path):
    """A resume that loads a checkpoint, with another torch."""
    versions = {"python": "3.11.7", "torch": "2.15.0"}
    resumed = {**SESSION, "versions": versions, "weights": {"sha256": "b" * 64}, "ended": "finished"}
    run = read_run(make_run(tmp_path / "run", weights="w.pth", sessions=[SESSION, resumed]))
    assert describe_origin(run) == {
        "initial weights": "w.pth (sha256 aaaaaaaaaaaa)",
        "seed": "1",
        "sessions": "2",
        "ended": "finished",
        "command": "train_net.py --config-file 'a b.yaml'",
        "data": "own_train (1,200 images, 9,000 instances, digest ffffffffffff), coco",
        "commit": "0123456789ab with changes",
        "python": "3.11.7",
        "torch": "2.14.1; 2.15.0",
        "GPUs": "H100",
        "processes": "2",
        "CPU cores": "16",
    }


def test_of_the_host(tmp_path):
    assert describe_origin(read_run(make_run(tmp_path / "a"))) == {"initial weights": "none", "seed": "1"}
    assert describe_origin(read_run(make_run(tmp_path / "b", config=False))) == {}


def test_a_session_that_says_little(tmp_path):
    run = read_run(make_run(tmp_path / "run", sessions=[{"start_iter": 0, "commit": None}]))
    assert describe_origin(run) == {"initial weights": "none", "seed": "1", "sessions": "1"}
