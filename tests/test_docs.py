"""The pages of docs/: their code runs, and the keys, files and flags that they name exist."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, SHORT_RUN, flatten
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import BACKBONE_REGISTRY

from rethink_pretrain.config import add_rethink_config, load_config
from rethink_pretrain.data.datasets.toy import make_toy_dataset
from rethink_pretrain.layers import NORMS

DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(
    r"<!-- (test|file: (?P<file>\S+)) -->\n```\w+\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)
COMMAND = re.compile(r"(?P<tool>tools/\w+\.py)(?P<words>[^`\n#]*)")


def blocks(page: Path) -> list[re.Match]:
    return list(BLOCK.finditer(page.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """A data set folder with a toy set of 500 small images."""
    root = tmp_path_factory.mktemp("drawn")
    make_toy_dataset(root / "toy", num_train=500, num_val=4, image_size=64, seed=0, num_workers=1)
    return root


@pytest.fixture
def workplace(drawn, tmp_path, monkeypatch):
    """A folder with configs/ and the toy set, where blocks may write and register; undone afterwards."""
    shutil.copytree(REPOSITORY / "configs", tmp_path / "configs")
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "toy").symlink_to(drawn / "toy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    known = [*DatasetCatalog]
    kept = {name: DatasetCatalog.pop(name) for name in known if name.startswith("toy_")}
    metadata = {name: MetadataCatalog.pop(name) for name in kept}
    monkeypatch.setattr(BACKBONE_REGISTRY, "_obj_map", dict(BACKBONE_REGISTRY._obj_map))
    norms = dict(NORMS)
    yield tmp_path
    NORMS.clear()
    NORMS.update(norms)
    for name in [name for name in DatasetCatalog if name in kept or name not in known]:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name, None)
    for name, load in kept.items():
        DatasetCatalog.register(name, load)
        MetadataCatalog[name] = metadata[name]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_code_runs(page, workplace):
    """All blocks of a page one after the other, as a reader types them."""
    namespace = {}
    for block in blocks(page):
        if block["file"]:
            Path(block["file"]).write_text(block["code"], encoding="utf-8")
        else:
            exec(compile(block["code"], page.name, "exec"), namespace)


def test_a_script_of_ones_own(workplace):
    """As the page says; its parts are known to what the script starts."""
    (code,) = [b["code"] for b in blocks(DOCS / "extending.md") if b["file"] == "my_train.py"]
    (workplace / "my_train.py").write_text(code)
    (workplace / "my_parts.py").write_text(
        "from rethink_pretrain.layers import NORMS, norm\nNORMS['mine'] = norm.group_norm\n"
    )
    (workplace / "tools").symlink_to(REPOSITORY / "tools")
    words = ["--config-file", "configs/scratch_6x.yaml", "--dry-run", "MODEL.FPN.NORM", "mine"]
    done = subprocess.run([sys.executable, "my_train.py", *words], capture_output=True, text=True)
    assert done.returncode == 0 and "NORM: mine" in done.stdout, done.stderr


def test_readme_in_python(workplace, monkeypatch):
    """The README's own block, six iterations long."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    code = re.search(r"^## In Python\n+```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[1]
    monkeypatch.setattr(
        "rethink_pretrain.config.load_config",
        lambda *args, opts, **kwargs: load_config(*args, opts=[*opts, *SHORT_RUN], **kwargs),
    )
    exec(compile(code, "README.md", "exec"), {})
    assert (workplace / "output" / "model_final.pth").exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_keys_exist(page):
    cfg = get_cfg()
    add_rethink_config(cfg)
    names = re.findall(
        r"\b(?:RETHINK|MODEL|SOLVER|INPUT|DATASETS|DATALOADER|TEST)(?:\.[A-Z0-9_]+)+", page.read_text()
    )
    for name in names:
        node = cfg
        for part in name.split("."):
            assert part in node, f"{page.name}: no key {name}"
            node = node[part]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_exist(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    written = {block["file"] for block in blocks(page)}
    names = set(re.findall(r"\b(?:configs|datasets|tools)/[\w./-]+\.(?:yaml|py|md)\b", text)) - written
    missing = [name for name in names if not (REPOSITORY / name).exists()]
    assert not missing, f"{page.name} names {missing}"
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert not [link for link in links if not (DOCS / link).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_flags_exist(page):
    """Every --flag behind a tool's name is one of its own or a shared one; a list of names may make flags."""
    shared = (REPOSITORY / "rethink_pretrain" / "command_line.py").read_text(encoding="utf-8")
    for command in COMMAND.finditer(page.read_text(encoding="utf-8").replace("\\\n", " ")):
        source = (REPOSITORY / command["tool"]).read_text(encoding="utf-8")
        # Named in the tool, or in a function of the shared flags that it calls.
        parts = shared.split("\ndef ")
        source += "".join(part for part in parts if f"{part.partition('(')[0]}(parser" in source)
        words = command["words"].partition(" -- ")[0]  # behind it stand those of another tool
        for flag in re.findall(r"(?<=\s)--[a-z][\w-]*", words):
            key = flag.removeprefix("--").replace("-", "_")
            names = (f'"{flag}"', f'"{key}"', f'"{key.upper()}"')
            assert any(name in source for name in names), f"{page.name}: {command['tool']} has no {flag}"


@pytest.mark.slow
def test_pages_build(tmp_path):
    """Without a warning."""
    pytest.importorskip("furo")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-b",
        "html",
        str(DOCS),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "api" / "config.html").exists()


def test_the_page_of_keys_has_all_of_ours(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("docs_conf", DOCS / "conf.py")
    conf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conf)
    monkeypatch.setattr(conf, "DOCS", tmp_path)
    (tmp_path / "api").mkdir()
    conf.write_keys(None)
    text = (tmp_path / "api" / "keys.txt").read_text()
    cfg = get_cfg()
    add_rethink_config(cfg)
    groups = ("RETHINK.DATA.",)  # one entry
    missing = [key for key in flatten(cfg.RETHINK, "RETHINK.") if f"``{key}``" not in text]
    assert [key for key in missing if not key.startswith(groups)] == []
