"""How the tools end, and the flags that several of them take. Loads nothing heavy."""

import argparse
import functools
import os
import select
import sys
from collections.abc import Callable, Sequence

from .errors import one_line_errors

INTERRUPTED = 130  # exit statuses, as shells count them: 128 + the number of the signal
NO_READER = 141
NO_HOST = (
    "Detectron2 is not installed. On a GPU machine follow its installation guide; elsewhere run "
    "tools/install_detectron2.py."
)


def tool(stopped: str = "Stopped.") -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Decorates a tool's `main`: whatever a user can cause ends it without a traceback.

    Ctrl-C, also while libraries load, is the line `stopped` and status 130; a `UserError` or a missing
    Detectron2 is a line `error: ...` and status 1; a reader of stdout that has left, as `head` does, is
    silence and status 141. Everything else is a bug and keeps its traceback.
    """

    def decorate(main: Callable[[], None]) -> Callable[[], None]:
        @functools.wraps(main)
        def run() -> None:
            try:
                _run_and_flush(main)
            except KeyboardInterrupt:
                print(stopped, file=sys.stderr)
                raise SystemExit(INTERRUPTED) from None
            except ModuleNotFoundError as error:
                if error.name != "detectron2":
                    raise
                print(f"error: {NO_HOST}", file=sys.stderr)
                raise SystemExit(1) from None
            except BrokenPipeError:
                if not _reader_has_left():
                    raise
                # What is still in the buffer would fail once more when Python ends.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise SystemExit(NO_READER) from None

        return run

    return decorate


def _run_and_flush(main: Callable[[], None]) -> None:
    """Whichever way it ends, what it printed is out, or has failed to get out, at the end of this."""
    try:
        with one_line_errors():
            main()
    finally:
        if sys.stdout is not None:  # as where it is closed from the start
            sys.stdout.flush()


def _reader_has_left() -> bool:
    """Whether stdout is a pipe that nobody reads: other pipes, to processes of our own, break by a bug."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def add_config_flags(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """--config-file and --overlay."""
    parser.add_argument("--config-file", required=required, metavar="FILE", help="a file of configs/")
    overlay_help = "merge configs/_overlay/NAME.yaml on top"
    parser.add_argument("--overlay", action="append", default=[], metavar="NAME", help=overlay_help)


def add_trust_flag(parser: argparse.ArgumentParser) -> None:
    """--trust-pickle."""
    trust_help = "let weight files run code: only from people you know"
    parser.add_argument("--trust-pickle", action="store_true", help=trust_help)


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """What every training takes, as the host names it: --resume and the processes it has."""
    parser.add_argument("--resume", action="store_true", help="continue the run in OUTPUT_DIR")
    parser.add_argument("--num-gpus", type=int, default=1, help="GPUs per machine, one process each")
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0, help="of this machine, from 0")
    parser.add_argument("--dist-url", default="auto", help="tcp://HOST:PORT where several machines meet")


def add_key_flags(parser: argparse.ArgumentParser, keys: Sequence[str], metavar: str, text: str) -> None:
    """A flag for each config key of a group: --train-json for TRAIN_JSON."""
    for key in keys:
        parser.add_argument(f"--{key.lower().replace('_', '-')}", metavar=metavar, help=text)


def add_opts(parser: argparse.ArgumentParser) -> None:
    """The rest of the line, `KEY VALUE ...`; add it last."""
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override config keys")


def as_opts(args: argparse.Namespace, group: str, keys: Sequence[str]) -> list[str]:
    """The flags of `add_key_flags` that were given, as `KEY VALUE ...` of the config group `group`."""
    given = {f"{group}.{key}": getattr(args, key.lower()) for key in keys}
    return [word for key, value in given.items() if value for word in (key, value)]
