from detectron2.utils.events import JSONWriter
from watch_loop import Loop, aps

from rethink_pretrain.analysis.runs import read_metrics, series
from rethink_pretrain.engine.watch import PromptWriter


def test_no_evaluation_is_lost_between_two_writes(tmp_path):
    """Evaluations behind steps 2, 4, ..., 10; the period of 7 would come after the third and lose two."""
    (tmp_path / "prompt").mkdir()
    writer = PromptWriter([JSONWriter(str(tmp_path / "prompt" / "metrics.json"))], 7)
    Loop(aps(1.0, 2.0, 3.0, 4.0, 5.0), [writer], tmp_path).run()
    rows = read_metrics(tmp_path / "prompt" / "metrics.json")
    assert series(rows, "bbox/AP") == ([1, 3, 5, 7, 10], [1.0, 2.0, 3.0, 4.0, 5.0])
