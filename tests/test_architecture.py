"""Who imports whom, and other rules of the source that ast can see."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "rethink_pretrain"
SOURCES = sorted(path for name in (PACKAGE, "tools", "tests") for path in (ROOT / name).rglob("*.py"))

# Part of the package -> the parts that it may import; "" is __init__.py of the package itself.
MAY_IMPORT = {
    "": set(),  # it loads modeling by name, behind the host's
    "analysis": {"errors", "files", "plain_yaml"},
    "checkpoint": {"compat", "errors", "files"},
    "command_line": {"errors"},
    "compat": set(),
    "config": {"compat", "errors", "layers", "plain_yaml", "solver"},
    "cores": set(),
    "data": {"compat", "cores", "errors", "files", "garbage", "progress"},
    "engine": {
        "analysis",
        "checkpoint",
        "compat",
        "config",
        "cores",
        "data",
        "errors",
        "evaluation",
        "files",
        "garbage",
        "layers",
        "modeling",
        "progress",
        "solver",
    },
    "errors": set(),
    "files": {"errors", "garbage"},
    "garbage": set(),
    "evaluation": {"compat", "data", "errors", "files", "garbage", "progress"},
    "layers": {"compat", "errors"},
    "modeling": {"compat", "errors", "layers"},
    "plain_yaml": {"errors"},
    "progress": set(),
    "solver": {"errors"},
}
# Arithmetic and file reading, tested in milliseconds and usable where no detector runs.
WITHOUT_TORCH = {
    "",
    "analysis",
    "command_line",
    "cores",
    "errors",
    "files",
    "garbage",
    "plain_yaml",
    "progress",
    "solver",
}
HEAVY = {"torch", "torchvision", "detectron2", "fvcore"}


def module_name(path: Path) -> str:
    """ "rethink_pretrain.data.datasets" of rethink_pretrain/data/datasets/__init__.py."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, is_package: bool) -> set[str]:
    """Absolute dotted names of all that `source` imports, wherever in the file the import stands.

    `from a import b` counts as `a.b`, because b may be a module.
    """
    package = module.split(".") if is_package else module.split(".")[:-1]
    ret = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            ret.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            ret.update(f"{base}.{alias.name}" for alias in node.names)
    return ret


def imports_of(path: Path) -> set[str]:
    return imports(path.read_text(), module_name(path), path.name == "__init__.py")


def part_of(module: str) -> str | None:
    """ "data" of rethink_pretrain.data.datasets, "" of rethink_pretrain, None of anything else."""
    top, _, rest = module.partition(".")
    return rest.partition(".")[0] if top == PACKAGE else None


def edits_sys_path(node: ast.AST) -> bool:
    """Whether `node` changes `sys.path`, or hides such a change behind another name. Reading it is fine."""
    if isinstance(node, ast.ImportFrom):
        return node.module == "sys" and any(alias.name == "path" for alias in node.names)
    if isinstance(node, ast.Subscript):
        return not isinstance(node.ctx, ast.Load) and ast.unparse(node.value) == "sys.path"
    if not isinstance(node, ast.Attribute):
        return False
    if ast.unparse(node) == "sys.path":
        return not isinstance(node.ctx, ast.Load)
    return node.attr in ("addsitedir", "syspath_prepend") or (
        ast.unparse(node.value) == "sys.path" and node.attr in ("append", "extend", "insert", "remove", "pop")
    )


def sys_path_edits(source: str) -> list[int]:
    """The lines of them."""
    return [node.lineno for node in ast.walk(ast.parse(source)) if edits_sys_path(node)]


every_module = pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path.is_relative_to(ROOT / PACKAGE)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
every_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))


class TestTheChecks:
    """What they would find in these lines."""

    @pytest.mark.parametrize(
        ("source", "module", "is_package", "expected"),
        [
            ("import torch.nn", "rethink_pretrain.a", False, {"torch.nn"}),
            ("from ..data import x", "rethink_pretrain.engine.setup", False, {"rethink_pretrain.data.x"}),
            ("from ..data import x", "rethink_pretrain.a.b", True, {"rethink_pretrain.a.data.x"}),
            ("from .. import compat", "rethink_pretrain.engine.setup", False, {"rethink_pretrain.compat"}),
            ("from . import modeling", "rethink_pretrain", True, {"rethink_pretrain.modeling"}),
            ("from .norm import N", "rethink_pretrain.layers", True, {"rethink_pretrain.layers.norm.N"}),
            ("from .norm import N", "rethink_pretrain.layers.b", False, {"rethink_pretrain.layers.norm.N"}),
            (
                "def f():\n  from ...errors import E",
                "rethink_pretrain.a.b.c",
                False,
                {"rethink_pretrain.errors.E"},
            ),
        ],
    )
    def test_imports(self, source, module, is_package, expected):
        assert imports(source, module, is_package) == expected

    @pytest.mark.parametrize(
        "source",
        [
            "import sys\nsys.path.insert(0, '.')",
            "import sys\nsys.path += ['.']",
            "import sys\nsys.path = []",
            "import sys\nsys.path[:0] = ['.']",
            "import sys\nfrom sys import path",
            "import sys\nsys.path.append('.')",
            "import site\nsite.addsitedir('.')",
        ],
    )
    def test_sys_path(self, source):
        assert sys_path_edits(source) == [2]

    def test_sys_path_may_be_read(self):
        assert sys_path_edits("import sys\nprint(sys.path, sys.path[0], len(sys.path))") == []

    def test_parts(self):
        assert part_of("rethink_pretrain.data.datasets.toy") == "data"
        assert part_of("rethink_pretrain") == ""
        assert part_of("rethink_pretrain_other.data") is None

    def test_files_are_found(self):
        parts = {part_of(module_name(path)) for path in SOURCES}
        assert {"", "config", "data", "engine", "layers", "modeling", "solver"} <= parts
        assert Path(__file__) in SOURCES


class TestImports:
    @every_module
    def test_direction(self, path):
        """Parts import downwards only. A part without a line in the table above needs one."""
        part = part_of(module_name(path))
        wanted = {part_of(name) for name in imports_of(path)} - {None, part}
        assert wanted <= MAY_IMPORT[part]

    @every_source
    def test_nobody_imports_tools_or_tests(self, path):
        assert not {name for name in imports_of(path) if name.split(".")[0] in ("tools", "tests")}

    @every_source
    def test_no_star(self, path):
        assert not {name for name in imports_of(path) if name.endswith("*")}

    @every_module
    def test_light_parts(self, path):
        if part_of(module_name(path)) in WITHOUT_TORCH:
            assert not {name for name in imports_of(path) if name.split(".")[0] in HEAVY}

    @every_source
    def test_no_sys_path(self, path):
        assert sys_path_edits(path.read_text()) == []

    def test_setup(self):
        assert {name.split(".")[0] for name in imports_of(ROOT / "setup.py")} == {"setuptools"}


def test_train_net_is_a_table_of_contents():
    assert len((ROOT / "tools" / "train_net.py").read_text().splitlines()) <= 80
