"""Checkpoints survive a kill at every file operation, full disks, and damage of any kind."""

import errno
import hashlib
import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch

from rethink_pretrain.checkpoint.store import (
    fault_of,
    find_good,
    has_any,
    peek,
    periodic,
    remove_leftovers,
    tag_last,
    write_checkpoint,
)

FORK = multiprocessing.get_context("fork")


def state(number: float) -> dict:
    """Large enough for several writes, filled with `number`."""
    return {"model": {"weight": torch.full((300_000,), float(number))}, "iteration": int(number)}


# Made before any fork: with torch's threads, which are not forked, a child would wait for ever.
STATES = [state(number) for number in range(5)]


def write(folder: Path, number: int, name: str = "", **options) -> Path:
    path = folder / (name or f"model_{number:07d}.pth")
    write_checkpoint(path, STATES[number] if number < len(STATES) else state(number), **options)
    return path


def read(path: Path) -> int:
    """The number in a checkpoint, all of whose tensor has to agree."""
    data = torch.load(path, weights_only=True)
    assert torch.equal(data["model"]["weight"], state(data["iteration"])["model"]["weight"])
    return data["iteration"]


def test_a_checkpoint_is_verified_noted_and_tagged(tmp_path):
    path = write(tmp_path, 3)
    assert read(path) == 3
    assert (tmp_path / "last_checkpoint").read_text() == path.name
    noted = (tmp_path / f"{path.name}.sha256").read_text()
    assert noted == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", f"{path.name}.sha256"], cwd=tmp_path, check=True)
    assert find_good(tmp_path) == (path, {})
    assert sorted(os.listdir(tmp_path)) == ["last_checkpoint", path.name, f"{path.name}.sha256"]
    assert peek(path)["iteration"] == 3 and peek(tmp_path / "absent.pth") == {}


def test_without_a_tag_a_resume_does_not_start_there(tmp_path):
    first = write(tmp_path, 1)
    best = write(tmp_path, 2, "model_best.pth", tag=False)
    assert read(best) == 2 and find_good(tmp_path) == (first, {})


class TestRetention:
    def test_the_newest_stay_with_best_final_and_last(self, tmp_path):
        write(tmp_path, 0, "model_best.pth", tag=False)
        write(tmp_path, 0, "model_final.pth", tag=False)
        for number in range(1, 6):
            write(tmp_path, number, keep=2)
        names = {path.name for path in tmp_path.glob("*.pth")}
        assert names == {"model_best.pth", "model_final.pth", "model_0000004.pth", "model_0000005.pth"}
        assert {path.stem for path in tmp_path.glob("*.sha256")} == names

    def test_a_run_that_went_back_keeps_what_it_writes(self, tmp_path):
        """Its files have lower numbers than those of the future that it gave up."""
        for number in (10, 20, 30):
            write(tmp_path, number)
        tag_last(tmp_path / "model_0000010.pth")
        write(tmp_path, 15, keep=2)
        assert [path.name for path in periodic(tmp_path)] == ["model_0000015.pth", "model_0000030.pth"]
        assert find_good(tmp_path)[0].name == "model_0000015.pth"

    def test_the_last_checkpoint_is_never_cleared(self, tmp_path):
        first = write(tmp_path, 1)
        for number in (2, 3, 4):
            write(tmp_path, number, tag=False, keep=1)
        assert {path.name for path in tmp_path.glob("*.pth")} == {first.name, "model_0000004.pth"}

    def test_zero_keeps_all_and_other_files_are_left_alone(self, tmp_path):
        (tmp_path / "model_of_mine.pth").write_text("mine")
        for number in range(1, 4):
            write(tmp_path, number)
        assert len(periodic(tmp_path)) == 3
        write(tmp_path, 4, keep=1)
        assert (tmp_path / "model_of_mine.pth").read_text() == "mine" and len(periodic(tmp_path)) == 1


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def empty(path):
    path.write_bytes(b"")


def flip_a_bit_of_a_tensor(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def remove(path):
    path.unlink()


DAMAGE = [truncate, zero, empty, flip_a_bit_of_a_tensor, remove]


class TestDamage:
    @pytest.mark.parametrize("noted", [True, False])
    @pytest.mark.parametrize("damage", DAMAGE)
    def test_the_newest_whole_one_is_found(self, tmp_path, damage, noted):
        """Also without a sha256 beside the files, as the host writes them."""
        first, second, third = (write(tmp_path, number) for number in (1, 2, 3))
        if not noted:
            for path in tmp_path.glob("*.sha256"):
                path.unlink()
        damage(third)
        found, faults = find_good(tmp_path)
        assert found == second and read(found) == 2
        assert list(faults) == ([] if damage is remove else [third.name])
        damage(second)
        assert find_good(tmp_path)[0] == first
        damage(first)
        assert find_good(tmp_path)[0] is None
        assert has_any(tmp_path) == (damage is not remove)

    def test_final_comes_before_periodic_and_best_comes_last(self, tmp_path):
        best = write(tmp_path, 1, "model_best.pth", tag=False)
        first = write(tmp_path, 2, tag=False)
        final = write(tmp_path, 3, "model_final.pth")
        for expected in (final, first, best):
            assert find_good(tmp_path)[0] == expected
            truncate(expected)
        assert set(find_good(tmp_path)[1]) == {best.name, first.name, final.name}

    @pytest.mark.parametrize("text", ["", "../outside.pth", "/etc/passwd", "absent.pth", "a\0b", "\udcff"])
    def test_a_tag_that_leads_astray_is_passed_over(self, tmp_path, text):
        folder = tmp_path / "run"
        folder.mkdir()
        write(tmp_path, 9, "outside.pth", tag=False)
        good = write(folder, 1)
        (folder / "last_checkpoint").write_bytes(text.encode("utf-8", "surrogateescape"))
        assert find_good(folder)[0] == good

    def test_a_zip_that_torch_did_not_write_is_no_reason_to_crash(self, tmp_path):
        path = tmp_path / "model_0000001.pth"
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("a", b"x" * 1000)
        path.write_bytes(buffer.getvalue()[:-30])
        assert fault_of(path)


class TestFullDisk:
    def test_too_little_space_is_known_before_writing(self, tmp_path, monkeypatch):
        first = write(tmp_path, 1)
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10, 9, 1_000_000))
        with pytest.raises(OSError, match="2 MB are needed") as caught:
            write(tmp_path, 2)
        assert caught.value.errno == errno.ENOSPC
        assert find_good(tmp_path) == (first, {}) and not list(tmp_path.glob("model_0000002*"))

    def test_a_write_that_fails_half_way_leaves_nothing(self, tmp_path):
        """A quota: the system does not tell beforehand."""
        first = write(tmp_path, 1)
        child = FORK.Process(target=_write_with_limit, args=(tmp_path,))
        child.start()
        child.join()
        assert child.exitcode == 0
        assert find_good(tmp_path) == (first, {}) and not list(tmp_path.glob("model_0000002*"))


def _write_with_limit(folder: Path) -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
    try:
        write(folder, 2)
    except (OSError, RuntimeError):  # torch makes the second of the first
        os._exit(0)
    os._exit(1)


class Killer:
    """Kills its process at the `number`-th file operation, before it takes place or after."""

    def __init__(self, number: int):
        self.left = number

    def strike(self) -> None:
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function):
        def wrapped(*args, **kwargs):
            self.strike()
            result = function(*args, **kwargs)
            self.strike()
            return result

        return wrapped

    def watch(self) -> None:
        for name in ("open", "fsync", "replace", "unlink", "rename", "truncate"):
            setattr(os, name, self.around(getattr(os, name)))
        opened = io.open

        def open_watched(path, mode="r", *args, **kwargs):
            self.strike()
            file = opened(path, mode, *args, **kwargs)
            return WatchedFile(file, self) if "w" in mode else file

        io.open = open_watched


class WatchedFile:
    """Unbuffered, so that a kill leaves the half that was written."""

    def __init__(self, file, killer):
        self.file, self.killer = file, killer

    def write(self, block):
        half = len(block) // 2
        self.file.write(block[:half])
        self.file.flush()
        self.killer.strike()
        self.file.write(block[half:])
        self.file.flush()
        self.killer.strike()
        return len(block)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.file.close()
        self.killer.strike()


def _save_and_die(folder: Path, name: str, at: int) -> None:
    Killer(at).watch()
    write(folder, 3, name, keep=1)
    os._exit(0)


@pytest.fixture
def memory(tmp_path):
    """A folder in memory where there is such a thing: a hundred saves wait long for a disk."""
    place = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=place if os.access(place, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@pytest.mark.parametrize("name", ["model_0000003.pth", "model_final.pth"])
def test_a_kill_at_every_file_operation_of_a_save_loses_nothing(memory, name):
    """A new file, and one that replaces another of its name."""
    before = memory / "before"
    before.mkdir()
    write(before, 1)
    write(before, 2, "model_final.pth", tag=False)
    write(before, 2)
    outcomes = []
    for at in range(1000):
        folder = memory / str(at)
        shutil.copytree(before, folder)
        child = FORK.Process(target=_save_and_die, args=(folder, name, at))
        child.start()
        child.join()
        found, faults = find_good(folder)
        assert faults == {}, f"operation {at}"
        outcomes.append(read(found))
        assert all(read(path) for path in folder.glob("*.pth")), f"operation {at}"
        remove_leftovers(folder)
        write(folder, 4, keep=1)  # the resumed run goes on
        assert read(find_good(folder)[0]) == 4 and not list(folder.glob("*.tmp"))
        for path in folder.glob("*.sha256"):
            assert fault_of(path.with_suffix("")) == ""
        shutil.rmtree(folder)
        if child.exitcode == 0:
            break
        assert child.exitcode == -signal.SIGKILL
    assert at > 25, "the operations were not seen"
    # The old one until the tag has moved, then the new one.
    assert outcomes == sorted(outcomes) and set(outcomes) == {2, 3}


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system of its own")
def test_a_real_full_disk(tmp_path):
    """A tmpfs of 4 MB in a namespace of its own: the second checkpoint of 1.2 MB fits, the third does not."""
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_store import *
folder = Path({str(tmp_path)!r})
write(folder, 1); second = write(folder, 2)
try:
    write(folder, 3)
except OSError as error:
    print("refused", error.errno)
assert find_good(folder) == (second, {{}}) and not list(folder.glob("model_0000003*"))
print("done")
"""
    shell = f"mount -t tmpfs -o size=4m tmpfs {tmp_path} && {sys.executable} - <<'END'\n{script}\nEND\n"
    out = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell],
        capture_output=True,
        text=True,
    )
    if "mount" in out.stderr or "unshare" in out.stderr:
        pytest.skip("no namespaces here")
    assert out.stdout.splitlines() == [f"refused {errno.ENOSPC}", "done"], out.stderr
