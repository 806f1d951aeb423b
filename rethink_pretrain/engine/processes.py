"""How many processes a run has, who started them, and which of them this is; plain Python."""

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from ..errors import UserError

_PORTS = 20_000, 20_000  # first port and number of ports that jobs without a port of their own choose from


class Processes(NamedTuple):
    """`total` processes, `per_machine` on each; `started_by` is "torchrun", "srun" or "" (this tool)."""

    total: int
    per_machine: int
    started_by: str = ""


ONE_PROCESS = Processes(1, 1)


def find_processes(
    num_gpus: int = 1, num_machines: int = 1, environ: Mapping[str, str] = os.environ
) -> Processes:
    """From the flags, or from the environment where a launcher has started this process as one of several.

    Raises `UserError` where the two contradict each other, and for impossible numbers.
    """
    started_by = launcher_of(environ)
    if not started_by:
        if num_gpus < 1 or num_machines < 1:
            raise UserError(f"--num-gpus {num_gpus} --num-machines {num_machines}: both are at least 1.")
        return Processes(num_gpus * num_machines, num_gpus)
    variables = rank_variables(environ)
    total, per_machine = int(variables["WORLD_SIZE"]), int(variables["LOCAL_WORLD_SIZE"])
    if (num_gpus, num_machines) not in ((1, 1), (per_machine, total // per_machine)):
        raise UserError(
            f"--num-gpus {num_gpus} --num-machines {num_machines}, but {started_by} has started {total} "
            f"processes, {per_machine} on this machine. Leave both flags to it."
        )
    return Processes(total, per_machine, started_by)


def launcher_of(environ: Mapping[str, str] = os.environ) -> str:
    """Who has started this process as one of several: "torchrun" (or its like), "srun", or ""."""
    if environ.keys() >= {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"}:
        return "torchrun"
    # Of a job step: the batch script itself, which also knows the number of tasks, is none of them.
    return "srun" if int(environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in environ else ""


def rank_variables(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """torch's RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT of this process."""
    if launcher_of(environ) == "torchrun":
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        return {
            "LOCAL_WORLD_SIZE": environ.get("LOCAL_WORLD_SIZE", environ["WORLD_SIZE"]),
            **{name: environ[name] for name in names},
        }
    first, count = _PORTS
    tasks = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ.get("SLURM_NTASKS_PER_NODE", "1")
    return {
        "RANK": environ["SLURM_PROCID"],
        "WORLD_SIZE": environ["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environ["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": re.match(r"\d+", tasks).group(),  # "8(x2)" is 8 on each of two machines
        "MASTER_ADDR": environ.get("MASTER_ADDR") or first_host(environ["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": environ.get("MASTER_PORT") or str(first + int(environ["SLURM_JOB_ID"]) % count),
    }


def first_host(nodelist: str) -> str:
    """ "node07" of SLURM's "node[07-09,12],gpu1"."""
    match = re.match(r"([^\[,]+)(?:\[(\w+)[^\]]*\]([^,]*))?", nodelist)
    if match is None:
        raise UserError(f"Cannot read the machines of SLURM_STEP_NODELIST {nodelist!r}. Set MASTER_ADDR.")
    return "".join(part or "" for part in match.groups())


def job_id(environ: Mapping[str, str] = os.environ) -> str:
    """What all starts of one job have in common, its restarts included; "" where nothing is known."""
    run_id = environ.get("TORCHELASTIC_RUN_ID", "")
    if run_id not in ("", "none"):  # torchrun's default is the same for all jobs
        return f"torchrun {run_id}"
    slurm = environ.get("SLURM_JOB_ID", "")
    return f"slurm {slurm}" if slurm and launcher_of(environ) else ""


def is_restart(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher has started this job before: torchrun after a failure, or SLURM's requeue."""
    counts = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    return any(int(environ.get(name, 0)) > 0 for name in counts)
