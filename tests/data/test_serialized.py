"""Records in one buffer: a list like any other, held once for workers of both kinds."""

import multiprocessing

import pytest
import torch

from rethink_pretrain.data.serialized import SerializedRecords

RECORDS = [{"image_id": n, "annotations": [{"bbox": [0.5, n, 3, 4]}] * n} for n in range(9)]


def test_it_is_the_list():
    serialized = SerializedRecords(iter(RECORDS))
    assert list(serialized) == RECORDS and len(serialized) == 9
    assert serialized[-1] == RECORDS[-1] and serialized[-9] == RECORDS[0]
    for index in (9, -10):
        with pytest.raises(IndexError, match=f"record {index} of 9"):
            serialized[index]
    assert list(SerializedRecords([])) == []


def test_a_record_is_a_copy():
    serialized = SerializedRecords(RECORDS)
    serialized[3]["annotations"].clear()
    assert serialized[3] == RECORDS[3]


def overwrite(serialized: SerializedRecords) -> None:
    serialized._bytes.zero_()


def test_a_spawned_worker_shares_the_buffer():
    serialized = SerializedRecords(RECORDS)
    worker = torch.multiprocessing.get_context("spawn").Process(target=overwrite, args=(serialized,))
    worker.start()
    worker.join(600)  # torch takes its time to import on a busy machine
    assert worker.exitcode == 0
    assert not serialized._bytes.any()  # what the worker wrote is seen here


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this platform")
def test_a_forked_worker_reads_it():
    serialized = SerializedRecords(RECORDS)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.map(serialized.__getitem__, range(9)) == RECORDS
