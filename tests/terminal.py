"""A real pseudo-terminal as standard output, of this process or of a child."""

import os
import pty
import re
import subprocess
import threading

import pytest


class Terminal:
    """While entered, `sys.stdout` is a terminal; afterwards `shown` is all that it was sent."""

    def __init__(self, term: str = "xterm", columns: int = 120):
        self._environment = {"TERM": term, "COLUMNS": str(columns)}
        self.shown = ""

    def __enter__(self) -> "Terminal":
        self._screen, theirs = pty.openpty()
        self._stream = os.fdopen(theirs, "w", encoding="utf-8")
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self._patch = pytest.MonkeyPatch()
        for name, value in self._environment.items():
            self._patch.setenv(name, value)
        self._patch.setattr("sys.stdout", self._stream)
        return self

    def __exit__(self, *error: object) -> None:
        self._patch.undo()
        self._stream.close()
        self._reader.join()

    def _read(self) -> None:
        self.shown = read_all(self._screen)

    @property
    def lines(self) -> list[str]:
        return lines(self.shown)


def run_in_terminal(command: list[str], timeout: float = 300, **env: str) -> tuple[int, str]:
    """Exit status of `command`, and what it wrote to the terminal, standard error too."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "PYTHONWARNINGS": "ignore", **env}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    shown = read_all(ours)
    return process.wait(timeout), shown


def read_all(screen: int) -> str:
    """Until the other end is closed."""
    blocks = []
    while True:
        try:
            block = os.read(screen, 4096)
        except OSError:  # Linux's way of saying so
            block = b""
        if not block:
            os.close(screen)
            return b"".join(blocks).decode()
        blocks.append(block)


def lines(shown: str) -> list[str]:
    """The texts between movements of the cursor, one after the other in time, without colours."""
    plain = re.sub(r"\x1b\[(\d*(;\d*)*m|\?25[hl])", "", shown)
    return [text for text in re.split(r"[\r\n]+|\x1b\[\d*[AK]", plain) if text]
