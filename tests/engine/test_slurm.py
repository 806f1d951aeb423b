"""Jobs: what sbatch gets, and a task's process between its signals, its exit status and the queue."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rethink_pretrain.engine import slurm
from rethink_pretrain.engine.slurm import Resources, TrainJob, parse_minutes, sbatch_script, submit
from rethink_pretrain.errors import UserError

submitit = pytest.importorskip("submitit")

TWO_MACHINES = Resources(
    2, 8, 4320, "gpu", account="lab", qos="high", constraint="h100|a100", cpus_per_gpu=12, mem="200G"
)


class TestTime:
    @pytest.mark.parametrize(
        ("text", "minutes"),
        [
            ("90", 90),
            ("90:00", 90),
            ("90:01", 91),
            ("12:00:00", 720),
            ("1:30:30", 91),
            ("3-00", 4320),
            ("1-12", 2160),
            ("1-12:30", 2190),
            ("0-00:05:00", 5),
        ],
    )
    def test_forms_of_sbatch(self, text, minutes):
        assert parse_minutes(text) == minutes

    @pytest.mark.parametrize("text", ["", "abc", "3d", "-5", "1:2:3:4", "3-", "1.5", "1-1:1:1:1"])
    def test_others(self, text):
        with pytest.raises(UserError, match="give minutes"):
            parse_minutes(text)

    @pytest.mark.parametrize("text", ["0", "4", "4:00", "0-00"])
    def test_too_short_to_save(self, text):
        with pytest.raises(UserError, match="at least 5 minutes"):
            parse_minutes(text)


class TestScript:
    def test_flags(self, tmp_path):
        lines = sbatch_script(TWO_MACHINES, tmp_path).splitlines()
        assert {line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")} >= {
            *("--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8", "--time=4320", "--partition=gpu"),
            *("--account=lab", "--qos=high", "--constraint='h100|a100'", "--cpus-per-task=12", "--mem=200G"),
            *("--job-name=rethink_pretrain", "--requeue", "--signal=USR2@120", "--open-mode=append"),
        }
        (command,) = [line for line in lines if line.startswith("srun")]
        assert "--kill-on-bad-exit=1 --cpus-per-task=12" in command
        assert command.endswith(f"{sys.executable} -u -m submitit.core._submit {tmp_path}")

    def test_what_is_not_given_is_left_out(self, tmp_path):
        script = sbatch_script(Resources(1, 1, 60), tmp_path)
        for flag in ("partition", "account", "qos", "constraint", "cpus-per-task", "--mem", "array"):
            assert flag not in script

    def test_array(self, tmp_path):
        script = sbatch_script(TWO_MACHINES, tmp_path, num_jobs=20, parallel=4)
        assert "#SBATCH --array=0-19%4\n" in script
        assert f"#SBATCH --output={tmp_path}/%A_%a_0_log.out\n" in script


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """A folder on the PATH with an srun, and an sbatch that keeps the script it gets."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, line in (
        ("srun", "exit 1"),
        ("sbatch", f'cp "$1" {tmp_path}/got; echo Submitted batch job 77'),
    ):
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


class TestSubmit:
    @pytest.mark.parametrize("num_jobs", [1, 3])
    def test_the_script_is_the_one_of_the_dry_run(self, num_jobs, fake_slurm, tmp_path):
        jobs = [TrainJob(["train_net.py", str(number)]) for number in range(num_jobs)]
        handles = submit(jobs, TWO_MACHINES, tmp_path / "logs", parallel=2, max_requeues=7)
        expected = sbatch_script(TWO_MACHINES, tmp_path / "logs", num_jobs, parallel=2)
        assert (tmp_path / "got").read_text() == expected
        assert [job.job_id for job in handles] == (["77"] if num_jobs == 1 else ["77_0", "77_1", "77_2"])
        for job, handle in zip(jobs, handles):
            delayed = handle.submission()
            assert delayed.function.command == job.command
            assert (delayed._timeout_min, delayed._timeout_countdown) == (4320, 7)

    def test_sbatchs_own_words(self, fake_slurm, tmp_path):
        (fake_slurm / "sbatch").write_text("#!/bin/sh\necho 'invalid partition: gpu' >&2\nexit 1\n")
        with pytest.raises(UserError, match=r"sbatch refused the job: .*invalid partition: gpu"):
            submit([TrainJob(["train_net.py"])], TWO_MACHINES, tmp_path)

    @pytest.mark.skipif(shutil.which("srun") is not None, reason="needs a machine without SLURM")
    def test_without_slurm(self, tmp_path):
        with pytest.raises(UserError, match="There is no SLURM here"):
            submit([TrainJob(["train_net.py"])], TWO_MACHINES, tmp_path)

    def test_without_submitit(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "submitit", None)
        with pytest.raises(UserError, match="pip install submitit"):
            sbatch_script(TWO_MACHINES, tmp_path)


# What a script of TrainJob may do. Its parent is the task; USR2 is what SLURM sends.
SAVE = """
import os, signal, sys, time
def save(*_):
    open("saved", "w").write("yes")
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
"""
WAIT = "time.sleep(30)\n"
PREEMPT = "os.kill(os.getppid(), signal.SIGUSR2)\n"
TERMINATE = "os.kill(os.getppid(), signal.SIGTERM)\n"


class TestTask:
    """One task, in this process, as submitit would call it."""

    @pytest.fixture(autouse=True)
    def task(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        variables = {
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_JOB_ID": "1",
            "SUBMITIT_LOCAL_NTASKS": "4",
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "2",
            "SUBMITIT_LOCAL_GLOBALID": "3",
            "SUBMITIT_LOCAL_LOCALID": "1",
            "CUDA_VISIBLE_DEVICES": "5,7",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.setenv(name, "")  # so that they go again
            monkeypatch.delenv(name)
        self.requeued = []
        before = signal.signal(signal.SIGUSR2, lambda *_: self.requeued.append(Path("saved").exists()))
        yield
        assert signal.getsignal(signal.SIGUSR2) is not before  # what was there when the task began is back
        signal.signal(signal.SIGUSR2, before)

    @staticmethod
    def job(source, *arguments, **options):
        Path("script.py").write_text(source)
        return TrainJob(["script.py", *arguments], **options)

    def test_environment(self):
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "CUDA_VISIBLE_DEVICES")
        source = f"import os, sys\nopen('seen', 'w').write(' '.join(os.environ[n] for n in {names}))"
        self.job(source)()
        assert Path("seen").read_text() == "3 4 1 2 5,7" and self.requeued == []

    @pytest.mark.parametrize(
        ("resume", "arguments", "expected"),
        [
            (False, ["--config-file", "a"], "--config-file a"),
            (True, ["--config-file", "a"], "--resume --config-file a"),
            (True, ["--resume", "a"], "--resume a"),
        ],
    )
    def test_resume(self, resume, arguments, expected):
        source = "import sys\nopen('seen', 'w').write(' '.join(sys.argv[1:]))"
        self.job(source, *arguments, resume=resume)()
        assert Path("seen").read_text() == expected

    def test_a_failure(self):
        with pytest.raises(RuntimeError, match=r"script\.py ended with status 3"):
            self.job("raise SystemExit(3)")()
        assert self.requeued == []

    def test_it_saves_and_is_then_requeued(self):
        self.job(SAVE + PREEMPT + WAIT)()
        assert self.requeued == [True]

    def test_slurm_signals_the_script_too(self):
        """And a data loader, which has no handler of its own."""
        child = "import subprocess\nassert subprocess.call(['sh', '-c', 'kill -USR2 $$; exit 5']) == 5\n"
        self.job(SAVE + "os.kill(os.getpid(), signal.SIGUSR2)\n" + child + PREEMPT + WAIT)()
        assert self.requeued == [True]

    def test_who_does_not_save_in_time_is_killed(self, monkeypatch):
        monkeypatch.setattr(slurm, "_SECONDS_TO_SAVE", 0.3)
        ignore = "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        self.job(ignore + PREEMPT + WAIT)()
        assert self.requeued == [False]

    def test_a_script_without_a_handler(self):
        self.job("import os, signal, time\n" + PREEMPT + WAIT)()
        assert self.requeued == [False]

    def test_finished_meanwhile_is_finished(self):
        self.job(SAVE + "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n" + PREEMPT + WAIT)()
        assert self.requeued == []

    def test_sigterm_alone_does_not_requeue(self):
        """A cancelled job looks the same."""
        with pytest.raises(RuntimeError, match="ended with status 143"):
            self.job(SAVE + TERMINATE + WAIT, patience=0.2)()
        assert self.requeued == [] and Path("saved").exists()

    def test_the_signal_may_follow_sigterm(self):
        later = f"sleep 1; kill -USR2 {os.getpid()}"
        with subprocess.Popen(["sh", "-c", later]):
            self.job(SAVE + TERMINATE + WAIT)()
        assert self.requeued == [True]

    def test_an_interrupted_task_leaves_no_process(self):
        source = "import os, signal, time\nopen('pid', 'w').write(str(os.getpid()))\n"
        with pytest.raises(KeyboardInterrupt):
            self.job(source + "os.kill(os.getppid(), signal.SIGINT)\n" + WAIT)()
        time.sleep(0.2)
        state = Path(f"/proc/{Path('pid').read_text()}/stat")
        assert not state.exists() or state.read_text().split(") ")[1][0] == "Z"


def test_jobs_are_pickled_by_name():
    """The process that runs one imports it, whatever the tool looked like that has submitted it."""
    text = pickle.dumps(TrainJob(["train_net.py"], resume=True, patience=5))
    assert b"rethink_pretrain.engine.slurm" in text and len(text) < 300
    assert vars(pickle.loads(text)) == {"command": ("train_net.py",), "resume": True, "patience": 5}


def test_checkpoint_is_the_same_with_resume():
    delayed = TrainJob(["train_net.py", "a"], patience=5).checkpoint()
    assert vars(delayed.function) == {"command": ("train_net.py", "a"), "resume": True, "patience": 5}
    assert (delayed.args, delayed.kwargs) == ((), {})


class TestVisibleGpus:
    """submitit's local executor would show GPUs 0, 1, ... even where the user has chosen others, or none."""

    @pytest.mark.parametrize(("visible", "expected"), [(None, (2, ())), ("4,6", (2, (4, 6))), ("", (0, ()))])
    def test_the_users_choice(self, visible, expected, monkeypatch):
        if visible is None:
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        else:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        parameters = slurm._local_parameters(Resources(1, 2, 60))
        assert (parameters["gpus_per_node"], parameters["visible_gpus"]) == expected
