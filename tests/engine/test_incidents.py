"""incidents.jsonl: strict JSON, one whole line a case, whoever writes and whatever happened before."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from rethink_pretrain.analysis.status import last_incident
from rethink_pretrain.engine.incidents import record_incident


def read(folder) -> list[dict]:
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    lines = (folder / "incidents.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines if line]


def test_a_line_has_the_time_first_then_plain_values_then_lists(tmp_path):
    record_incident(tmp_path, image_ids=[[1], ["b"]], iteration=12, losses={"a": 1.5}, kind="exploding loss")
    (line,) = read(tmp_path)
    assert list(line) == ["time", "iteration", "kind", "image_ids", "losses"]
    assert (line["iteration"], line["image_ids"], line["losses"]) == (12, [[1], ["b"]], {"a": 1.5})
    time = datetime.fromisoformat(line["time"])
    assert time.utcoffset() == timedelta(0) and time.microsecond == 0
    assert abs(datetime.now(timezone.utc) - time) < timedelta(minutes=1)


def test_it_is_what_the_status_of_a_run_shows(tmp_path):
    record_incident(tmp_path, iteration=12, kind="non-finite loss", image_ids=[[1]], loss=float("nan"))
    assert last_incident(tmp_path).endswith(", iteration 12, kind non-finite loss, loss nan")


def test_what_json_does_not_have_becomes_text(tmp_path):
    nan, inf = float("nan"), float("inf")
    record_incident(tmp_path, a=nan, b=np.float64("inf"), c=[{"d": inf}], e=(-inf, 1.5), f=np.int64(3))
    (line,) = read(tmp_path)
    del line["time"]
    assert line == {"a": "nan", "b": "inf", "c": [{"d": "inf"}], "e": ["-inf", 1.5], "f": "3"}


@pytest.mark.parametrize("before", ['{"iteration": 1}\n', '{"iterati', ""])
def test_a_line_that_a_kill_cut_off_stays_alone(tmp_path, before):
    (tmp_path / "incidents.jsonl").write_text(before)
    record_incident(tmp_path, iteration=2)
    lines = (tmp_path / "incidents.jsonl").read_text().splitlines()
    assert lines[:-1] == ([before.strip()] if before else [])
    assert json.loads(lines[-1])["iteration"] == 2


def test_lines_of_several_writers_do_not_mix(tmp_path):
    """Each call has a descriptor of its own, so threads are as good as processes."""

    def write(number: int) -> None:
        for iteration in range(100):
            record_incident(tmp_path, writer=number, iteration=iteration, image_ids=list(range(200)))

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(write, range(3)))
    found = [(line["writer"], line["iteration"]) for line in read(tmp_path)]
    assert sorted(found) == [(writer, iteration) for writer in range(3) for iteration in range(100)]


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        record_incident(tmp_path / "missing", iteration=2, kind="non-finite loss")
    (message,) = caplog.messages
    assert "missing" in message and "non-finite loss" in message
