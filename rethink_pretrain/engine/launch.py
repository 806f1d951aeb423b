"""From one command to the processes of a run: one here, several here, or one of those of a launcher.

Several are started by torch's elastic agent, which is also what torchrun is: every process of a run, however
it came to be, finds its rank in the environment and goes through `_join`.
"""

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm

from .. import compat
from ..cores import usable_cores
from ..errors import ECHO_SECONDS, UserError
from .heartbeat import watched_machines
from .processes import Processes, rank_variables

# For collectives. Long, because evaluation keeps one process busy while the others wait; a process that dies
# is noticed by its launcher and by the connections that it closes.
_TIMEOUT = timedelta(minutes=30)
_ECHOES = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")


def launch(
    run: Callable[..., Any],
    args: tuple[Any, ...],
    processes: Processes,
    device: str = "auto",
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
) -> None:
    """Call `run(*args)` in every process of the run; returns when this process's part has ended.

    Where this process is to start others, it runs its own command in each, and ends (`SystemExit`) with their
    status if one fails. `device` "cuda", or "auto" with a GPU, means one GPU per process and NCCL, anything
    else gloo.
    """
    on_gpu = torch.cuda.is_available() if device == "auto" else device.startswith("cuda")
    if processes.started_by:
        _join(run, args, processes, on_gpu)
    elif processes.total == 1:
        run(*args)
    else:
        _start(processes, num_machines, machine_rank, dist_url)


def _join(run: Callable[..., Any], args: tuple[Any, ...], processes: Processes, on_gpu: bool) -> None:
    os.environ.update(rank_variables())
    over = threading.Event()
    watcher = threading.Thread(target=_watch_parent, args=(os.getppid(), over), daemon=True)
    watcher.start()
    local_rank = int(os.environ["LOCAL_RANK"])
    if on_gpu:
        # A batch system may show each process its own GPU alone.
        visible = torch.cuda.device_count()
        torch.cuda.set_device(0 if visible == 1 else local_rank)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, usable_cores() // processes.per_machine))
    store, rank, total = next(dist.rendezvous("env://", timeout=_TIMEOUT))
    name = agree_on_name(store, rank, total)
    store = dist.PrefixStore(name, store)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=total, timeout=_TIMEOUT
    )
    # From here on there is something to finish: until now, SIGTERM has ended this process at once.
    signal.signal(signal.SIGTERM, _end)
    compat.create_local_process_group(processes.per_machine)
    comm.synchronize()  # before the first collective with a short timeout of its own
    machine, machines = rank // processes.per_machine, total // processes.per_machine
    watched = watched_machines(name, machine, machines) if machines > 1 and not local_rank else None
    try:
        with _said_once(local_rank), watched or contextlib.nullcontext():
            run(*args)
            comm.synchronize()  # nobody leaves while others could take that for a failure
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is left to finish
    _leave_orderly()
    over.set()
    watcher.join()


def _leave_orderly() -> None:
    """Groups and threads that are still there when Python goes down can abort a process that is done."""
    comm._get_global_gloo_group.cache_clear()
    dist.destroy_process_group()
    gc.collect()


def agree_on_name(store: dist.Store, rank: int, total: int) -> str:
    """A name that all processes of this start of the job have in common, and no earlier start had.

    torchrun keeps one store over its restarts. Without a name of their own, new processes would find the
    addresses of dead ones in it.
    """
    own = uuid.uuid4().hex
    store.set(f"hello/{rank}", own)
    if rank > 0:
        name = store.get(f"name/{own}").decode()  # waits for the first process
        store.set(f"agreed/{name}/{rank}", "")
        return name
    # A process of an earlier start may have left its hello: until the new one has agreed, look again.
    missing = set(range(1, total))
    while missing:
        for other in sorted(missing):
            if store.check([f"hello/{other}"]):
                store.set(f"name/{store.get(f'hello/{other}').decode()}", own)
            if store.check([f"agreed/{own}/{other}"]):
                missing.remove(other)
        time.sleep(0.02)
    return own


@contextlib.contextmanager
def _said_once(local_rank: int) -> Iterator[None]:
    """Lets the process that failed speak before those that only lost their connection to it."""
    try:
        yield
    except KeyboardInterrupt:
        if local_rank:
            raise SystemExit(130) from None  # the first process of the machine says it
        raise
    except Exception as error:
        if any(echo in str(error) for echo in _ECHOES):
            time.sleep(ECHO_SECONDS)  # usually the launcher ends this process meanwhile
        raise


def _end(signum: int, frame: Any) -> None:
    raise SystemExit(128 + signum)


def _watch_parent(parent: int, over: threading.Event) -> None:
    """Until `over`: nobody else ends this process when what started it is killed outright."""
    while os.getppid() == parent:
        if over.wait(1):
            return
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)  # for SystemExit to be raised; a process that waits for another never gets there
    os._exit(128 + signal.SIGTERM)


def _start(processes: Processes, num_machines: int, machine_rank: int, dist_url: str) -> None:
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in logging.root.manager.loggerDict:
        if name.startswith("torch.distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what failed is said below, once
    config = LaunchConfig(
        min_nodes=num_machines,
        max_nodes=num_machines,
        nproc_per_node=processes.per_machine,
        max_restarts=0,
        **_meeting_point(num_machines, machine_rank, dist_url),
    )
    try:
        elastic_launch(config, sys.executable)(*sys.argv)
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from None  # the processes got it too, and said so
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            raise UserError(
                f"Process {rank} (pid {failure.pid}) was killed by {name}{_often(name)}, and the others were "
                "ended. --resume goes on from the last checkpoint."
            ) from None
        raise SystemExit(failure.exitcode) from None  # it has shown its own error


def _often(signal_name: str) -> str:
    return ", which is how a machine out of memory ends processes" if signal_name == "SIGKILL" else ""


def _meeting_point(num_machines: int, machine_rank: int, dist_url: str) -> dict[str, Any]:
    if num_machines == 1:
        # Any free port, so that two runs on one machine do not disturb each other.
        return {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": f"pid{os.getpid()}"}
    if not dist_url.startswith("tcp://"):
        raise UserError(
            f"--dist-url {dist_url} is where {num_machines} machines meet: give tcp://HOST:PORT, with a host "
            "name of machine 0 that all of them can reach."
        )
    return {
        "rdzv_backend": "static",
        "rdzv_endpoint": dist_url.removeprefix("tcp://"),
        "rdzv_configs": {"rank": machine_rank},
        "run_id": "machines",
    }
