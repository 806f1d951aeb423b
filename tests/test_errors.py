"""What becomes of errors in the processes that load data."""

import os
import signal
import time

import pytest
from torch._utils import ExceptionWrapper
from torch.utils.data import DataLoader

from rethink_pretrain.data.images import RawOnly
from rethink_pretrain.errors import UserError, one_line, worker_errors


class Failing:
    """A data set whose items raise `error`, or whose worker gets a signal."""

    def __init__(self, error: Exception | None = None, number: int = 0):
        self._error, self._signal = error, number

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if self._signal:
            os.kill(os.getpid(), self._signal)
            time.sleep(60)
        raise self._error


def load(dataset: Failing, num_workers: int) -> None:
    with worker_errors():
        list(DataLoader(dataset, num_workers=num_workers))


@pytest.mark.parametrize("kind", [UserError, RawOnly])
@pytest.mark.parametrize(
    "message", ["Cannot read a.jpg: truncated.", "x: y: z (KeyError: 3).", "two\nlines", "Traceback: none"]
)
def test_the_message_of_a_worker_is_the_one_it_gave(kind, message):
    """torch makes an error with a traceback of it, here without a process between."""
    try:
        raise kind(message)
    except UserError:
        wrapper = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(UserError) as error, worker_errors():
        wrapper.reraise()
    assert str(error.value) == message


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_of_a_real_worker(num_workers):
    with pytest.raises(UserError, match=r"^Cannot read a\.jpg: truncated\.$"):
        load(Failing(UserError("Cannot read a.jpg: truncated.")), num_workers)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_is_gone_is_told_in_one_line(number):
    with pytest.raises(UserError) as error:
        load(Failing(number=number), 1)
    text = str(error.value)
    assert text.isprintable()
    for part in ("has died", "DataLoader worker (pid", "DATALOADER.NUM_WORKERS", "--resume"):
        assert part in text


@pytest.mark.parametrize(("num_workers", "kind"), [(0, RuntimeError), (1, RuntimeError), (0, AttributeError)])
def test_a_mistake_of_ours_keeps_its_traceback(num_workers, kind):
    with pytest.raises(kind, match="bug"):
        load(Failing(kind("bug")), num_workers)


def test_one_line():
    assert one_line("a\nb\tc\x1b[0m \udcff ü") == "a b c [0m   ü"
