import multiprocessing
import os
import signal
import time

import pytest

from rethink_pretrain.engine.lock import only_run_in
from rethink_pretrain.errors import UserError


def hold(folder, ready):
    with only_run_in(folder):
        ready.set()
        time.sleep(60)


@pytest.fixture
def other(tmp_path):
    """A process that trains in tmp_path."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(10)
    yield process
    process.kill()
    process.join()


def test_a_second_training_in_the_folder_is_refused(tmp_path, other):
    with pytest.raises(UserError, match="Another process is training"), only_run_in(tmp_path, patience=0.3):
        pytest.fail("two at a time")


def test_a_killed_one_holds_nothing(tmp_path, other):
    os.kill(other.pid, signal.SIGKILL)
    with only_run_in(tmp_path, patience=5):
        pass


def test_one_process_may_train_again_and_again(tmp_path):
    for _ in range(2):
        with only_run_in(tmp_path / "new", patience=0):
            pass
