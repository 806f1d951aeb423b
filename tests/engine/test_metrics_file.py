import json

from rethink_pretrain.engine.metrics_file import rewind_metrics


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_that_come_again_are_dropped(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text("".join(json.dumps({"iteration": i, "loss": i / 10}) + "\n" for i in (0, 4, 5, 9)))
    assert rewind_metrics(path, 5) == {"iteration": 5, "loss": 0.5}
    assert rows_of(path) == [{"iteration": 0, "loss": 0.0}, {"iteration": 4, "loss": 0.4}]
    assert rewind_metrics(path, 5) == {}


def test_rows_of_one_iteration_become_one_and_torn_lines_go(tmp_path):
    """What a kill and a resume of an older version have left."""
    path = tmp_path / "metrics.json"
    path.write_bytes(
        b'{"iteration": 1, "loss": 1.0}\n{"iteration": 3, "loss": 2.0}\n'
        b'{"iterat{"iteration": 1, "loss": 9.0}\n'
        b'{"bbox/AP": NaN, "iteration": 1}\nnull\n{"loss": 1}\n{"iteration": 5, "lo\xff'
    )
    assert rewind_metrics(path, 10) == {}
    (first, second) = rows_of(path)
    assert (first["iteration"], first["loss"]) == (1, 1.0) and first["bbox/AP"] != first["bbox/AP"]
    assert second == {"iteration": 3, "loss": 2.0}


def test_a_file_in_order_is_not_written_again(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 1, "loss": 1.0}\n')
    before = path.stat()
    rewind_metrics(path, 2)
    assert path.stat().st_ino == before.st_ino
    assert rewind_metrics(tmp_path / "absent.json", 0) == {} and not (tmp_path / "absent.json").exists()
