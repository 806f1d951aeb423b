"""Lines by a clock of the test's own, bars in a real pseudo-terminal."""

import logging
import re
import sys

import pytest
from terminal import Terminal, run_in_terminal

from rethink_pretrain import progress as module
from rethink_pretrain.progress import duration, progress, track


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands; add to clock[0] to move it."""
    now = [0.0]
    monkeypatch.setattr(module, "clock", lambda: now[0])
    return now


class TestLines:
    def test_at_most_one_in_ten_seconds_and_one_at_the_end(self, clock, capsys):
        for _ in track(range(500), "Reading"):
            clock[0] += 0.125
        captured = capsys.readouterr()
        # An eighth of a second an item: a line after each 80, and an eighth for each that is left.
        assert captured.err.splitlines() == [
            "Reading: 80 of 500, 0:52 left",
            "Reading: 160 of 500, 0:42 left",
            "Reading: 240 of 500, 0:32 left",
            "Reading: 320 of 500, 0:22 left",
            "Reading: 400 of 500, 0:12 left",
            "Reading: 480 of 500, 0:02 left",
            "Reading: 500 of 500 in 1:02",
        ]
        assert captured.out == ""

    def test_short_work_says_nothing_and_longer_work_something(self, clock, capsys):
        assert list(track("abc", "Short")) == ["a", "b", "c"]
        assert capsys.readouterr().err == ""
        for _ in track("abc", "Longer"):
            clock[0] += 0.5
        assert capsys.readouterr().err == "Longer: 3 of 3 in 0:01\n"

    def test_of_an_unknown_number(self, clock, capsys):
        for _ in track(iter(range(3)), "Files"):
            clock[0] += 20
        assert capsys.readouterr().err.splitlines() == [
            *("Files: 1", "Files: 2", "Files: 3"),
            "Files: 3 in 1:00",
        ]

    def test_what_was_there_before_does_not_shorten_the_rest(self, clock, capsys):
        with progress("Training", 100, done=80) as task:
            clock[0] += 10
            task.advance(10, "loss 1.2")
        assert capsys.readouterr().err.splitlines()[0] == "Training: 90 of 100, 0:10 left, loss 1.2"

    def test_a_total_that_becomes_known(self, clock, capsys):
        with progress("Drawing") as task:
            clock[0] += 10
            task.move_to(1, 3)
        assert capsys.readouterr().err.splitlines()[0] == "Drawing: 1 of 3, 0:20 left"

    def test_broken_off_work_is_not_called_done(self, clock, capsys):
        with pytest.raises(KeyError), progress("Reading", 2) as task:
            clock[0] += 10
            task.advance()
            raise KeyError
        assert capsys.readouterr().err.splitlines() == ["Reading: 1 of 2, 0:10 left"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.9, "0:59"), (60, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (360_061, "100:01:01")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


class TestTerminal:
    def test_a_bar_with_count_and_status(self):
        with Terminal() as terminal, progress("[Draw]", 3) as task:
            for number in range(3):
                task.advance(status=f"[{number}]")
        first, *_, last = terminal.lines
        assert re.fullmatch(r"\[Draw\] ━{24} 0/3 -:--:-- *", first)
        assert re.fullmatch(r"\[Draw\] ━{24} 3/3 \d:\d\d:\d\d \[2\] *", last)

    def test_on_a_narrow_terminal_the_status_gives_way(self):
        with Terminal(columns=60) as terminal, progress("Draw", 3) as task:
            task.announce("a status of many words, more than there is room for here")
        assert re.fullmatch(r"Draw ━{24} 0/3 -:--:-- a status of man.*…", terminal.lines[-1])
        assert {len(line) for line in terminal.lines} == {60}

    def test_a_step_that_cannot_move_is_announced(self, clock):
        with Terminal() as terminal, progress("Subset", 2) as task:
            task.announce("reading")
            task.advance()
            task.announce("writing")
            task.advance()
        states = [" ".join(line.split()[2:]) for line in terminal.lines]
        assert list(dict.fromkeys(states)) == [
            *("0/2 -:--:--", "0/2 -:--:-- reading", "1/2 -:--:-- writing", "2/2 0:00:00"),
        ]

    def test_work_in_work_and_what_is_printed_meanwhile(self):
        """The second row comes and goes, prints and log lines stay whole, and one row is left."""
        logger = logging.getLogger("test_progress_bars")
        with Terminal() as terminal:
            stream = sys.stdout
            handler = logging.StreamHandler(stream)
            logger.addHandler(handler)
            with progress("Training", 2) as task:
                for number in range(2):
                    for _ in track("ab", "Evaluating"):
                        pass
                    logger.warning("logged %d", number)
                    print("printed", number)
                    task.advance()
            logger.removeHandler(handler)
            assert sys.stdout is stream and handler.stream is stream
            print("after")
        for line in ("logged 0", "printed 0", "logged 1", "printed 1"):
            assert line in terminal.lines
        assert any(line.startswith("Evaluating") and " 2/2 " in line for line in terminal.lines)
        *_, last, after = terminal.lines
        assert last.startswith("Training") and " 2/2 " in last and after == "after"

    def test_after_an_error_the_terminal_is_as_it_was(self):
        with Terminal() as terminal:
            stream = sys.stdout
            with pytest.raises(ZeroDivisionError):
                for number in track(range(3), "Work"):
                    1 / number
            assert sys.stdout is stream
        assert terminal.shown.count("\x1b[?25l") == terminal.shown.count("\x1b[?25h") == 1  # the cursor

    def test_a_loop_that_never_ends_goes_with_the_work_around_it(self):
        """As after an error, whose traceback holds it."""
        with Terminal() as terminal:
            stream = sys.stdout
            with progress("Training", 2):
                inner = track(range(3), "Evaluating")
                next(inner)
            assert sys.stdout is stream
            inner.close()
            with progress("Next", 2):
                assert sys.stdout is not stream
            assert sys.stdout is stream
        assert terminal.lines[-1].startswith("Next")
        *_, last = [line for line in terminal.lines if not line.startswith("Next")]
        assert last.startswith("Training")

    def test_a_loop_that_is_left_takes_its_bar_along(self):
        with Terminal():
            stream = sys.stdout
            for _ in track(range(3), "Work"):
                assert sys.stdout is not stream
                break
            assert sys.stdout is stream

    def test_a_process_that_ends_in_the_middle_leaves_the_cursor(self):
        code = "from rethink_pretrain.progress import start; start('Work', 3); raise SystemExit(3)"
        status, shown = run_in_terminal([sys.executable, "-c", code])
        assert status == 3 and shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1

    def test_a_terminal_that_cannot_draw_gets_lines(self, clock, capsys):
        with Terminal(term="dumb") as terminal:
            for _ in track(range(2), "Work"):
                clock[0] += 6
        assert terminal.shown == ""
        assert capsys.readouterr().err == "Work: 2 of 2 in 0:12\n"
