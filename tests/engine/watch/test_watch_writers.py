import errno
import logging

from detectron2.utils.events import EventWriter, JSONWriter
from watch_loop import Loop, aps

from rethink_pretrain.analysis.runs import read_metrics, series
from rethink_pretrain.engine.watch import PromptWriter


class FullDisk(EventWriter):
    """Has no room for its first `failures` writes."""

    def __init__(self, failures):
        self.failures, self.written = failures, 0

    def write(self):
        if self.failures:
            self.failures -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        self.written += 1


def test_no_evaluation_is_lost_between_two_writes(tmp_path):
    """Evaluations behind steps 2, 4, ..., 10; the period of 7 would come after the third and lose two."""
    (tmp_path / "prompt").mkdir()
    writer = PromptWriter(lambda: [JSONWriter(str(tmp_path / "prompt" / "metrics.json"))], 7)
    Loop(aps(1.0, 2.0, 3.0, 4.0, 5.0), [writer], tmp_path).run()
    rows = read_metrics(tmp_path / "prompt" / "metrics.json")
    assert series(rows, "bbox/AP") == ([1, 3, 5, 7, 10], [1.0, 2.0, 3.0, 4.0, 5.0])


def test_a_full_disk_is_said_once_and_ends_nothing(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("rethink_pretrain"), "propagate", True)
    full, path = FullDisk(failures=3), tmp_path / "prompt.json"
    Loop(aps(1.0, 2.0, 3.0), [PromptWriter(lambda: [full, JSONWriter(str(path))], 1)], tmp_path).run()
    assert full.written == 4  # of steps 4 to 6 and the last evaluation
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == [
        "FullDisk cannot write: [Errno 28] No space left on device. Training goes on."
    ]
    assert len(path.read_text().splitlines()) == 3  # the others lose nothing
