"""tools/install_detectron2.py: what it refuses, what the stand-in does, and (slow) a whole installation."""

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import venv
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "install_detectron2.py"


def load_module(name: str, path: Path) -> ModuleType:
    """A module from a file that is on no import path."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


installer = load_module("install_detectron2", SCRIPT)


@pytest.fixture
def stand_in(tmp_path) -> ModuleType:
    (tmp_path / "detectron2").mkdir()
    installer.complete_project(tmp_path)
    return load_module("detectron2_stand_in", tmp_path / "detectron2" / "_C.py")


@pytest.fixture
def no_host(monkeypatch):
    monkeypatch.setattr(installer, "find_host", lambda: None)


def write_archive(path: Path, files: dict[str, str]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))


# --- repairs


def test_a_repair_replaces_its_text(tmp_path):
    (tmp_path / "a.py").write_text("x = Image.LINEAR\ny = 1\n")
    installer.apply_repairs(tmp_path, [installer.Repair("a.py", "Image.LINEAR", "Image.BILINEAR", "gone")])
    assert (tmp_path / "a.py").read_text() == "x = Image.BILINEAR\ny = 1\n"


@pytest.mark.parametrize("text", ["", "old old"])
def test_a_repair_that_does_not_match_once_names_its_file(tmp_path, text):
    (tmp_path / "a.py").write_text(text)
    with pytest.raises(installer.InstallError, match=rf"a\.py.* found it {text.count('old')} times"):
        installer.apply_repairs(tmp_path, [installer.Repair("a.py", "old", "new", "")])
    assert (tmp_path / "a.py").read_text() == text


def test_a_repair_of_a_missing_file_names_it(tmp_path):
    with pytest.raises(installer.InstallError, match=r"a\.py"):
        installer.apply_repairs(tmp_path, [installer.Repair("a.py", "old", "new", "")])


def test_numpy_aliases_become_python_types():
    repair = installer.numpy_alias("a.py", "np.full(n, np.nan, dtype=np.float)")
    assert repair.new == "np.full(n, np.nan, dtype=float)"
    assert all(r.old != r.new and r.reason for r in installer.REPAIRS)


# --- the stand-in for the compiled operators


def test_the_stand_in_is_silent_until_an_operator_is_called(stand_in):
    assert stand_in.IS_STAND_IN
    operator = stand_in.roi_align_rotated_forward
    with pytest.raises(RuntimeError, match=r"roi_align_rotated_forward is not compiled.*from source"):
        operator(1, key=2)


@pytest.mark.parametrize("name", ["__path__", "__wrapped__", "_private"])
def test_the_stand_in_has_no_special_attributes(stand_in, name):
    assert not hasattr(stand_in, name)


def test_the_stand_in_answers_what_the_host_asks_at_start(stand_in):
    # detectron2.utils.collect_env calls these three.
    assert stand_in.get_compiler_version() == stand_in.get_cuda_version() == "not compiled"
    assert stand_in.has_cuda() is False


# --- archives


def test_an_archive_with_another_hash_is_refused_before_it_is_opened(tmp_path, no_host, monkeypatch, capsys):
    archive = tmp_path / "other.tar.gz"
    write_archive(archive, {"pb1-detectron2-0.6/detectron2/__init__.py": ""})
    monkeypatch.setattr(installer, "extract_package", lambda *_: pytest.fail("the archive was opened"))
    assert installer.main(["--archive", str(archive)]) == 1
    error = capsys.readouterr().err
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in error
    assert installer.ARCHIVE_SHA256 in error


def test_a_missing_archive_is_one_line(tmp_path, no_host, capsys):
    assert installer.main(["--archive", str(tmp_path / "none.tar.gz")]) == 1
    assert capsys.readouterr().err.splitlines() == [f"error: {tmp_path / 'none.tar.gz'}: no such file"]


def test_where_a_new_pip_refuses_the_archive_the_choices_are_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise installer.InstallError(
            f"pip download failed:\n ERROR: Distributions {installer.NEW_PIP_REFUSAL}."
        )

    monkeypatch.setattr(installer, "run_pip", refuse)
    with pytest.raises(installer.InstallError, match=r'(?s)pip download failed.*"pip<26\.3".*--archive'):
        installer.download_archive(tmp_path)


def test_only_the_package_and_its_licence_are_extracted(tmp_path):
    names = ["detectron2/a/b.py", "LICENSE", "setup.py", "projects/DeepLab/c.py"]
    write_archive(tmp_path / "a.tar.gz", {f"pb1-detectron2-0.6/{name}": name for name in names})
    assert (
        installer.extract_package(tmp_path / "a.tar.gz", tmp_path / "out") == tmp_path / "out" / "detectron2"
    )
    written = {p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.glob("out/**/*") if p.is_file()}
    assert written == {"detectron2/a/b.py", "LICENSE"}


def test_an_archive_cannot_write_outside(tmp_path):
    write_archive(tmp_path / "a.tar.gz", {"x/detectron2/../../evil.py": "evil"})
    with pytest.raises(installer.InstallError, match="evil"):
        installer.extract_package(tmp_path / "a.tar.gz", tmp_path / "out")
    assert not list(tmp_path.rglob("evil.py"))


# --- an existing installation


def test_an_importable_host_is_left_alone():
    import detectron2

    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "left alone" in done.stdout
    assert detectron2.__version__ in done.stdout
    assert str(Path(detectron2.__file__).parent) in done.stdout


@pytest.mark.parametrize("recipe", ["", installer.RECIPE])
def test_a_copy_that_is_foreign_or_up_to_date_stays(monkeypatch, capsys, recipe):
    monkeypatch.setattr(installer, "find_host", lambda: installer.Host(Path("here"), "0.6", "", recipe))
    monkeypatch.setattr(installer, "install_host", lambda *_: pytest.fail("it was replaced"))
    assert installer.main([]) == 0
    assert capsys.readouterr().out == "Detectron2 0.6 found in here: left alone.\n"


def test_a_copy_of_an_older_script_is_renewed(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(
        installer, "find_host", lambda: installer.Host(Path("here"), "0.6", "", "0123456789ab")
    )
    monkeypatch.setattr(installer, "install_host", lambda *arguments: calls.append(arguments))
    assert installer.main(["--dry-run"]) == 0
    assert calls == [(None, True)]


def test_a_broken_host_is_reported_and_not_replaced(monkeypatch, capsys):
    broken = installer.Host(Path("here"), "0.6", "ImportError: libcudart.so", "")
    monkeypatch.setattr(installer, "find_host", lambda: broken)
    monkeypatch.setattr(installer, "install_host", lambda *_: pytest.fail("it was replaced"))
    assert installer.main([]) == 1
    assert "libcudart.so" in capsys.readouterr().err


def test_a_folder_named_detectron2_is_not_a_host(tmp_path):
    (tmp_path / "detectron2").mkdir()
    probe = [
        sys.executable,
        "-S",
        "-c",
        installer.PROBE,
    ]  # -S: without site-packages, so without the real one
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    assert subprocess.run(probe, env=environment, capture_output=True, text=True).stdout == "null\n"


def test_ctrl_c_ends_without_a_traceback(no_host, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(installer, "install_host", interrupt)
    assert installer.main([]) == 130
    assert capsys.readouterr().err.strip() == "stopped"


# --- the whole way


USE = """
import detectron2, detectron2.engine, detectron2.model_zoo as zoo, detectron2.utils.analysis, torch
from detectron2 import _C
from detectron2.modeling import build_model
cfg = zoo.get_config("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE = "", "cpu"
with torch.no_grad():
    output = build_model(cfg).eval()([{"image": torch.zeros(3, 64, 96)}])
print(_C.IS_STAND_IN, sorted(output[0]["instances"].get_fields()))
"""


@pytest.mark.slow
def test_the_real_archive_in_a_fresh_environment(tmp_path):
    """Fetches the archive (0.5 MB), so it needs the network. torch and the rest are borrowed from here.

    pip is the one that comes with Python: pip 26.3 and later refuse the archive.
    """
    borrowed = tmp_path / "borrowed"
    borrowed.mkdir()
    for folder in {Path(p) for p in sys.path if p.endswith("site-packages")}:
        for entry in folder.iterdir():
            if not entry.name.startswith(("detectron2", "pip", "__")) and entry.suffix != ".pth":
                (borrowed / entry.name).symlink_to(entry)
    environment = tmp_path / "venv"
    venv.create(environment, symlinks=True, with_pip=True)
    python = environment / "bin" / "python"
    (site_packages,) = environment.glob("lib/python*/site-packages")
    (site_packages / "borrowed.pth").write_text(f"{borrowed}\n")

    def run(*arguments: str) -> str:
        done = subprocess.run([python, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("-m", "pip", "uninstall", "--yes", "setuptools")  # an old one comes with Python 3.10 and 3.11
    assert "nothing is installed" in run(str(SCRIPT), "--dry-run")
    assert f"is installed in {site_packages / 'detectron2'}" in run(str(SCRIPT))
    assert "left alone" in run(str(SCRIPT))
    assert "Version: 0.6" in run("-m", "pip", "show", "detectron2")
    assert run("-c", USE).endswith("True ['pred_boxes', 'pred_classes', 'pred_masks', 'scores']\n")
