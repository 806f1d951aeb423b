#!/usr/bin/env python3
"""Install Detectron2 0.6, unless `import detectron2` already works.

The package index has no `detectron2`. It has `pb1-detectron2` 0.6, a source archive with the Python code of
Detectron2 v0.6. That does not install as it is: its setup.py compiles C++ sources that are not in it, and its
code is older than current NumPy, Pillow and setuptools. This script fetches the archive with pip, which
checks the sha256 before anything in it runs, repairs a copy, puts a stand-in where the compiled operators
would be (our models use none), and installs the result under its proper name, detectron2.

    python tools/install_detectron2.py                   # does nothing where a Detectron2 is importable
    python tools/install_detectron2.py --dry-run         # fetches and repairs, installs nothing
    python tools/install_detectron2.py --archive FILE    # takes an archive fetched earlier, same sha256

It runs before our own package is installed, so it needs the standard library and pip alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from importlib import metadata, util
from pathlib import Path, PurePosixPath
from string import Template
from typing import NamedTuple

ARCHIVE_NAME = "pb1-detectron2"
VERSION = "0.6"
ARCHIVE_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"

# What Detectron2 0.6 asks for, without what serves only paths we do not use: black (LazyConfig.to_py), future
# and pydot (Caffe2 export). iopath had the upper bound <0.1.10, but 0.1.10 is what is tested here.
REQUIRES = (
    "Pillow>=7.1",
    "matplotlib",
    "pycocotools>=2.0.2",
    "termcolor>=1.1",
    "yacs>=0.1.8",
    "tabulate",
    "cloudpickle",
    "tqdm>4.29.0",
    "tensorboard",
    "fvcore>=0.1.5,<0.1.6",
    "iopath>=0.1.7",
    "omegaconf>=2.1",
    "hydra-core>=1.1",
)


class Repair(NamedTuple):
    """One replacement in `file`, relative to the detectron2 package. `old` must stand there exactly once."""

    file: str
    old: str
    new: str
    reason: str


def numpy_alias(file: str, old: str) -> Repair:
    """The repair of `old`, a use of one of NumPy's former names for Python's own types."""
    new = re.sub(r"\bnp\.(bool|int|float|str)\b", r"\1", old)
    return Repair(
        file, old, new, "np.int, np.float, np.str: gone since NumPy 1.24; np.bool: not in 1.24 to 1.26"
    )


REPAIRS = (
    Repair(
        "data/transforms/transform.py",
        "interp=Image.LINEAR",
        "interp=Image.BILINEAR",
        "LINEAR was another name of BILINEAR, gone since Pillow 10",
    ),
    Repair("model_zoo/model_zoo.py", "import pkg_resources\n", "", "gone from setuptools"),
    Repair(
        "model_zoo/model_zoo.py",
        "pkg_resources.resource_filename(\n"
        '        "detectron2.model_zoo", os.path.join("configs", config_path)\n    )',
        'os.path.join(os.path.dirname(__file__), "configs", config_path)',
        "gone from setuptools",
    ),
    Repair(
        "evaluation/coco_evaluation.py",
        "self._use_fast_impl = use_fast_impl",
        "self._use_fast_impl = False",
        "the default, a compiled evaluator, is not here; without it pycocotools does the work",
    ),
    Repair(
        "export/__init__.py",
        "from .api import *\n",
        "try:\n    from .api import *\nexcept ImportError:\n    pass\n",
        "needs Caffe2, which left PyTorch; tracing, and with it the FLOP counts in utils.analysis, does not",
    ),
    numpy_alias("data/build.py", "np.zeros((num_classes,), dtype=np.int)"),
    numpy_alias("data/build.py", '"iscrowd", 0)], dtype=np.int'),
    numpy_alias("data/datasets/pascal_voc.py", "dtype=np.str)"),
    numpy_alias("evaluation/pascal_voc_evaluation.py", '["difficult"] for x in R]).astype(np.bool)'),
    numpy_alias("evaluation/sem_seg_evaluation.py", "(output, dtype=np.int)"),
    numpy_alias("evaluation/sem_seg_evaluation.py", "Image.open(f), dtype=np.int)"),
    numpy_alias(
        "evaluation/sem_seg_evaluation.py", "acc = np.full(self._num_classes, np.nan, dtype=np.float)"
    ),
    numpy_alias(
        "evaluation/sem_seg_evaluation.py", "iou = np.full(self._num_classes, np.nan, dtype=np.float)"
    ),
    numpy_alias("evaluation/sem_seg_evaluation.py", "diagonal()[:-1].astype(np.float)"),
    numpy_alias("evaluation/sem_seg_evaluation.py", "axis=0).astype(np.float)"),
    numpy_alias("evaluation/sem_seg_evaluation.py", "axis=1).astype(np.float)"),
    numpy_alias("structures/masks.py", "np.zeros((height, width)).astype(np.bool)"),
    numpy_alias("structures/masks.py", "decode(rle).astype(np.bool)"),
    numpy_alias("structures/masks.py", "(keep, dtype=np.bool)"),
    numpy_alias("utils/visualizer.py", "empty_ids[0]).numpy().astype(np.bool)"),
    numpy_alias("utils/visualizer.py", "yield (self._seg == sid).numpy().astype(np.bool)"),
    numpy_alias("utils/visualizer.py", "mask = (self._seg == sid).numpy().astype(np.bool)"),
    numpy_alias("utils/video_visualizer.py", "dtype=np.bool)"),
)

# The three functions that answer are those collect_env_info() calls at the start of every training run.
STAND_IN = Template('''\
"""Stands where Detectron2's compiled operators would be: they were not built.

Importing this module or looking up an operator is silent; calling one raises RuntimeError.
"""

IS_STAND_IN = True
RECIPE = "$recipe"


def get_compiler_version():
    return "not compiled"


def get_cuda_version():
    return "not compiled"


def has_cuda():
    return False


def __getattr__(name):
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def operator(*args, **kwargs):
        raise RuntimeError(
            f"detectron2._C.{name} is not compiled: only the Python code of Detectron2 is installed here. "
            "Build Detectron2 from source to use this operator."
        )

    operator.__name__ = name
    return operator
''')

SETUP_PY = Template("""\
from pathlib import Path

from setuptools import find_packages, setup

zoo = Path("detectron2/model_zoo")
setup(
    name="detectron2",
    version="$version",
    description="Detectron2, its Python code only, repaired for current NumPy, Pillow and setuptools",
    url="https://github.com/facebookresearch/detectron2",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(),
    package_data={"detectron2.model_zoo": [str(p.relative_to(zoo)) for p in zoo.glob("configs/**/*.*")]},
    python_requires=">=3.10,<3.14",
    install_requires=$requires,
)
""")

PYPROJECT_TOML = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'

# Changes with all that goes into the installed copy, so that the copy of an older script is recognised.
_INGREDIENTS = (ARCHIVE_SHA256, REQUIRES, REPAIRS, STAND_IN.template, SETUP_PY.template)
RECIPE = hashlib.sha256(repr(_INGREDIENTS).encode()).hexdigest()[:12]

# `import detectron2` succeeds on a bare folder of that name, too, but then the spec has no origin.
PROBE = """
import importlib.util, json
spec = importlib.util.find_spec("detectron2")
found = None
if spec is not None and spec.origin is not None:
    found = {"file": spec.origin, "version": "of unknown version", "error": ""}
    try:
        import detectron2
        found["version"] = getattr(detectron2, "__version__", found["version"])
    except Exception as error:
        found["error"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""

SMOKE_TEST = """
from detectron2 import engine, model_zoo
model_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml")
"""

# pip 26.3 began to refuse such archives, even with --no-deps. That is a protection, so this script does not
# go round it: the user decides.
NEW_PIP_REFUSAL = "cannot declare direct URL dependencies"
NEW_PIP_ADVICE = f"""\
From 26.3 on, pip refuses this archive because an optional requirement of it is a web address. Nothing that it
requires would be fetched here (--no-deps), and its content is pinned by its sha256. The choice is yours:
  - an older pip in this environment: {sys.executable} -m pip install "pip<26.3"
  - or get {ARCHIVE_NAME}-{VERSION}.tar.gz in another way, and name it with --archive
  - or build Detectron2 from source (see its INSTALL.md)"""


class InstallError(Exception):
    """What stops the installation. The message says what is wrong and, where known, what to do."""


class Host(NamedTuple):
    """A Detectron2 that Python finds. `recipe` is empty unless this script made it."""

    folder: Path
    version: str
    error: str
    recipe: str


def run_python(arguments: Sequence[str], what: str) -> str:
    """Standard output of this Python with `arguments`. Where it fails, the error ends with what it said last.

    It runs in an empty folder, because Python looks into the current one, which may hold a `detectron2`.
    """
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run([sys.executable, *arguments], cwd=empty, capture_output=True, text=True)
    if done.returncode:
        tail = (done.stderr.strip() or done.stdout.strip()).splitlines()[-15:]
        raise InstallError("\n    ".join([f"{what} failed:", *tail]))
    return done.stdout


def run_pip(command: str, *arguments: str) -> None:
    """Run one pip command of this environment."""
    run_python(
        ["-m", "pip", "--disable-pip-version-check", "--no-input", command, *arguments], f"pip {command}"
    )


def find_host() -> Host | None:
    """The Detectron2 that `import detectron2` finds, whether it works or not."""
    found = json.loads(run_python(["-c", PROBE], "looking for Detectron2").splitlines()[-1])
    if found is None:
        return None
    folder = Path(found["file"]).parent
    stand_in = folder / "_C.py"
    recipe = re.search(r'^RECIPE = "(\w+)"', stand_in.read_text(), re.M) if stand_in.is_file() else None
    return Host(folder, found["version"], found["error"], recipe[1] if recipe else "")


def require_build_tools(download: bool) -> None:
    """Stop early where pip could not do its part."""
    needed = ["pip", "setuptools"]
    if download:
        needed.append("torch")  # the archive's setup.py imports it when pip asks for the archive's metadata
    for module in needed:
        if util.find_spec(module) is None:
            raise InstallError(f"{module} is missing in {sys.prefix}: install it first")
    # From 70.1 on setuptools builds wheels without the `wheel` package.
    if int(metadata.version("setuptools").split(".")[0]) < 71 and util.find_spec("wheel") is None:
        raise InstallError("setuptools is too old here: pip install --upgrade setuptools")


def download_archive(folder: Path) -> Path:
    """Fetch the archive into `folder` with pip, from the index that pip is configured for."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{ARCHIVE_NAME}=={VERSION} --hash=sha256:{ARCHIVE_SHA256}\n")
    flags = ["--no-deps", "--no-build-isolation", "--no-binary", ":all:", "--require-hashes"]
    try:
        run_pip("download", *flags, "--dest", str(folder), "-r", str(requirement))
    except InstallError as error:
        raise InstallError(f"{error}\n{NEW_PIP_ADVICE}") if NEW_PIP_REFUSAL in str(error) else error from None
    return folder / f"{ARCHIVE_NAME}-{VERSION}.tar.gz"


def check_archive(archive: Path) -> None:
    """Refuse every file but the known archive."""
    if not archive.is_file():
        raise InstallError(f"{archive}: no such file")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != ARCHIVE_SHA256:
        raise InstallError(
            f"{archive}: not the expected archive, sha256 is {digest} instead of {ARCHIVE_SHA256}"
        )


def extract_package(archive: Path, folder: Path) -> Path:
    """Write the archive's `detectron2` package and its licence below `folder`; returns the package's path.

    Writes regular files only, with default permissions. tools/ and projects/ (PointRend, DeepLab) stay out:
    `detectron2.projects` imports without them.
    """
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts[1:]  # the first is pb1-detectron2-0.6
            if not member.isfile() or not (parts[:1] == ("detectron2",) or parts == ("LICENSE",)):
                continue
            if ".." in parts:
                raise InstallError(f"{archive}: {member.name} leaves the archive's folder")
            target = folder.joinpath(*parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(tar.extractfile(member).read())
    return folder / "detectron2"


def apply_repairs(package: Path, repairs: Sequence[Repair] = REPAIRS) -> None:
    """Apply each repair, or stop at the first whose text does not stand there exactly once."""
    for repair in repairs:
        path = package / repair.file
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        matches = text.count(repair.old)
        if matches != 1:
            raise InstallError(f"{repair.file}: expected {repair.old!r} once, found it {matches} times")
        path.write_text(text.replace(repair.old, repair.new), encoding="utf-8")


def complete_project(project: Path) -> None:
    """Add the stand-in for the compiled operators and a setup.py that compiles nothing."""
    files = {
        "detectron2/_C.py": STAND_IN.substitute(recipe=RECIPE),
        "setup.py": SETUP_PY.substitute(version=VERSION, requires=list(REQUIRES)),
        "pyproject.toml": PYPROJECT_TOML,
    }
    for name, text in files.items():
        (project / name).write_text(text, encoding="utf-8")


def install_host(archive: Path | None, dry_run: bool) -> None:
    """Fetch, check, repair, install; one line per step."""
    require_build_tools(download=archive is None)
    with tempfile.TemporaryDirectory(prefix="detectron2-") as temporary:
        folder = Path(temporary)
        if archive is None:
            print(f"Fetching {ARCHIVE_NAME} {VERSION} ...", flush=True)
            archive = download_archive(folder)
        check_archive(archive)
        project = folder / "project"
        package = extract_package(archive, project)
        apply_repairs(package)
        complete_project(project)
        print(f"Repaired {len(REPAIRS)} places in {len({r.file for r in REPAIRS})} files.", flush=True)
        if dry_run:
            print("Dry run: nothing is installed.")
            return
        print("Installing ...", flush=True)
        run_pip("install", "--no-deps", "--no-build-isolation", "--force-reinstall", str(project))
    run_python(["-c", SMOKE_TEST], "Detectron2 is installed now, but importing it")
    print(f"Detectron2 {VERSION} is installed in {find_host().folder}.")


def ensure_host(archive: Path | None, dry_run: bool) -> None:
    """Install Detectron2 unless one is here that works and is not the copy of an older script."""
    host = find_host()
    if host and host.error:
        raise InstallError(
            f"the Detectron2 in {host.folder} does not import ({host.error}). "
            "Install what it needs, or remove it (pip uninstall detectron2), and try again."
        )
    if host and host.recipe in ("", RECIPE):
        print(f"Detectron2 {host.version} found in {host.folder}: left alone.")
        return
    if host:
        print(f"Detectron2 in {host.folder} was made by another version of this script: renewing it.")
    install_host(archive, dry_run)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Install Detectron2 0.6, unless `import detectron2` already works."
    )
    parser.add_argument(
        "--archive", type=Path, metavar="FILE", help="take this archive instead of fetching it"
    )
    parser.add_argument("--dry-run", action="store_true", help="do everything but the installation")
    options = parser.parse_args(argv)
    try:
        ensure_host(options.archive, options.dry_run)
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
