"""A training command as a process that can be killed, and that starts in a moment.

Most of a start is importing: the process is forked from this one, which has everything imported, and then
runs what the command runs. It is the leader of a session of its own, as behind a terminal or a batch system.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path


class Victim:
    """Calls `main` as the command `words` in a new process; all that it says goes to the file `said`."""

    def __init__(self, main: Callable[[], None], words: list[str], said: Path):
        self.started = time.monotonic()
        self._process = multiprocessing.get_context("fork").Process(target=_run, args=(main, words, said))
        self._process.start()

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def wait(self, timeout: float) -> int:
        """Its exit status once it has ended by itself; after `timeout` s it is killed (`TimeoutError`)."""
        self._process.join(timeout)
        if self.alive:
            self.kill()
            raise TimeoutError(f"A run has not ended within {timeout:.0f} s.")
        return self._process.exitcode

    def kill(self) -> None:
        """SIGKILL to the process and all that it has started."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not come to its own session yet, or has ended
            self._process.kill()
        self._process.join()


def _run(main: Callable[[], None], words: list[str], said: Path) -> None:
    os.setsid()
    with said.open("ab", buffering=0) as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = words
    main()
