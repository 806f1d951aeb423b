"""Who started a process, from the environments of torchrun and SLURM."""

import pytest

from rethink_pretrain.engine.processes import (
    Processes,
    find_processes,
    first_host,
    is_restart,
    job_id,
    launcher_of,
    rank_variables,
)
from rethink_pretrain.errors import UserError

TORCHRUN = {
    "RANK": "9",
    "WORLD_SIZE": "16",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "8",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
}
SRUN = {
    "SLURM_JOB_ID": "1234567",
    "SLURM_NTASKS": "16",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
}


def test_flags_alone():
    assert find_processes(8, 2, {}) == Processes(16, 8)
    assert find_processes(environ={}) == Processes(1, 1)


@pytest.mark.parametrize(("environ", "name"), [(TORCHRUN, "torchrun"), (SRUN, "srun")])
def test_launchers(environ, name):
    assert launcher_of(environ) == name
    assert find_processes(environ=environ) == find_processes(8, 2, environ) == Processes(16, 8, name)


def test_a_batch_script_of_slurm_is_no_task():
    """sbatch sets SLURM_NTASKS and SLURM_PROCID for the script, too; it may start its own processes."""
    script = {"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    assert find_processes(8, 1, script) == Processes(8, 8)


def test_flags_that_contradict_the_launcher_are_refused():
    with pytest.raises(UserError, match=r"--num-gpus 4 .* torchrun has started 16 processes, 8 on this"):
        find_processes(4, 1, TORCHRUN)


@pytest.mark.parametrize("flags", [(0, 1), (1, 0), (-1, 1)])
def test_impossible_numbers_are_refused(flags):
    with pytest.raises(UserError, match="both are at least 1"):
        find_processes(*flags, {})


def test_variables_of_torchrun_pass_through():
    assert rank_variables(TORCHRUN) == TORCHRUN


def test_variables_of_srun():
    assert rank_variables(SRUN) == {
        "RANK": "9",
        "WORLD_SIZE": "16",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "8",
        "MASTER_ADDR": "gpu03",
        "MASTER_PORT": "34567",  # 20000 + 1234567 % 20000
    }
    own = rank_variables({**SRUN, "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "7"})
    assert (own["MASTER_ADDR"], own["MASTER_PORT"]) == ("10.0.0.1", "7")


@pytest.mark.parametrize(
    ("nodelist", "expected"),
    [
        ("node7", "node7"),
        ("node7,node8", "node7"),
        ("node[07-09,12],gpu1", "node07"),
        ("rack-1-[3,5]", "rack-1-3"),
        ("n[1-2]-ib", "n1-ib"),
        ("host.example[10-11]", "host.example10"),
    ],
)
def test_first_host(nodelist, expected):
    assert first_host(nodelist) == expected


def test_jobs_and_restarts():
    assert job_id({"TORCHELASTIC_RUN_ID": "abc"}) == "torchrun abc"
    assert job_id({"TORCHELASTIC_RUN_ID": "none"}) == job_id({}) == ""
    assert job_id(SRUN) == "slurm 1234567"
    assert not is_restart({}) and not is_restart({"TORCHELASTIC_RESTART_COUNT": "0"})
    assert is_restart({"TORCHELASTIC_RESTART_COUNT": "2"}) and is_restart({"SLURM_RESTART_COUNT": "1"})
