"""Writing while training goes on: a copy of the state in memory, and a thread that writes it."""

import copy
import threading
from collections.abc import Callable
from typing import Any

import torch


def snapshot(data: Any) -> Any:
    """`data` with all its dicts, lists and tensors copied, tensors into the memory of the CPU."""
    if isinstance(data, torch.Tensor):
        return data.detach().to("cpu", copy=True)
    if isinstance(data, dict):
        ret = copy.copy(data)  # keeps the attribute in which state_dicts carry the versions of modules
        for key, value in data.items():
            ret[key] = snapshot(value)
        return ret
    if isinstance(data, list):
        return [snapshot(value) for value in data]
    if type(data) is tuple:
        return tuple(snapshot(value) for value in data)
    return copy.deepcopy(data)


class Background:
    """One job at a time in a thread; the next waits for it. The end of the process does, too."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Run `job` beside the caller, behind the job before it."""
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(job,), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Until the job is done. An error that it did not handle itself is raised here."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as error:
            self._error = error
