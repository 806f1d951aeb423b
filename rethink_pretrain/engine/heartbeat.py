"""Machines of one run watch each other, so that the loss of one is seen within a minute.

On one machine the launcher sees a process die, and gloo's connections break at once. NCCL's need not: without
this, the other machines would wait for the end of a collective's timeout, half an hour.
"""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

import torch.distributed as dist

# An AP computation may keep Python's lock for tens of seconds, in which no other thread beats.
_PERIOD, _SILENCE = 5.0, 50.0  # seconds


@contextlib.contextmanager
def watched_machines(name: str, machine: int, machines: int) -> Iterator[None]:
    """While it lasts, end this process when nothing is heard from one of the others.

    One process of each machine enters it, and leaves it with the others. `name` tells this start of the job
    from earlier ones. The store is that of MASTER_ADDR and MASTER_PORT, by a connection of its own: the
    process group's may be waiting for something.
    """
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    over = threading.Event()
    arguments = (dist.PrefixStore(f"beat/{name}", store), machine, machines, over, _end)
    threading.Thread(target=watch, args=arguments, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def watch(
    store: dist.Store,
    machine: int,
    machines: int,
    over: threading.Event,
    on_silence: Callable[[str], None],
    period: float = _PERIOD,
    silence: float = _SILENCE,
) -> None:
    """Beat every `period` s until `over`; `on_silence(what)` once one is silent for `silence` s."""
    heard = {other: (b"", time.monotonic()) for other in range(machines) if other != machine}
    beat = 0
    while not over.wait(period):
        beat += 1
        try:
            store.set(str(machine), str(beat))
            beats = {other: store.get(str(other)) for other in heard if store.check([str(other)])}
        except RuntimeError as error:  # torch's DistError is one
            if not over.is_set():
                on_silence(f"the machine of process 0 cannot be reached ({str(error).partition(chr(10))[0]})")
            return
        now = time.monotonic()
        for other, value in beats.items():
            if value != heard[other][0]:
                heard[other] = (value, now)
        silent = [other for other, (_, since) in heard.items() if now - since > silence]
        if silent and not over.is_set():
            on_silence(f"nothing was heard from machine {silent[0]} for {silence:.0f} s")
            return


def _end(what: str) -> None:
    print(f"error: {what}. --resume goes on from the last checkpoint.", file=sys.stderr, flush=True)
    os._exit(1)  # the main thread may be waiting inside a library
