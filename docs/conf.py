"""How Sphinx builds these pages: `make docs`, or sphinx-build -W --keep-going -b html docs output/docs."""

import functools
import importlib
import inspect
import pkgutil
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from detectron2.config import CfgNode, get_cfg  # noqa: E402

import rethink_pretrain  # noqa: E402
from rethink_pretrain.config import add_rethink_config  # noqa: E402

project = "rethink_pretrain"
author = "The rethink_pretrain authors"
release = rethink_pretrain.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary"]

html_theme = "furo"
html_title = "rethink_pretrain"
html_show_copyright = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["docs.css"]

myst_heading_anchors = 3
highlight_language = "text"  # of blocks that name none: commands

smartquotes = False
default_role = "code"  # docstrings mark code by single backticks
autosummary_generate = False  # `write_api` below does
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False  # the host's
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

# In the order in which a config becomes a result; index.md lists them too.
PACKAGES = ("config", "solver", "layers", "modeling", "data", "engine", "evaluation", "analysis")


def modules_of(package: str) -> list[ModuleType]:
    """The package and all modules below it."""
    root = importlib.import_module(f"rethink_pretrain.{package}")
    found = pkgutil.walk_packages(getattr(root, "__path__", []), f"{root.__name__}.")
    return [root, *(importlib.import_module(info.name) for info in found)]


def is_data(value: object) -> bool:
    """Whether it has no docstring of its own, as a table or an alias of a type."""
    return not (inspect.isclass(value) or inspect.isfunction(value))


def public_names(module: ModuleType, exported: dict[str, str]) -> list[str]:
    """Documented functions and classes defined in `module`, and what else of it a package exports."""
    source = inspect.getsource(module)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (
            is_exported(module, name, exported) and re.search(rf"^{name}(: .*)? = ", source, re.MULTILINE)
            if is_data(value)
            else value.__module__ == module.__name__ and value.__doc__
        )
    ]


def describe_module(module: ModuleType, exported: dict[str, str]) -> list[str]:
    """Its docstring, a table of the names, then each of them in full, as they are best imported."""
    title = module.__name__.removeprefix("rethink_pretrain.")
    lines = [title, "-" * len(title), "", f".. automodule:: {module.__name__}"]
    lines += ["   :no-index:", "", ".. currentmodule:: None", ""]  # names below are given in full
    names = public_names(module, exported)
    places = [exported[name] if is_exported(module, name, exported) else module.__name__ for name in names]
    paths = [f"{place}.{name}" for place, name in zip(places, names)]
    documented = [path for path, name in zip(paths, names) if not is_data(getattr(module, name))]
    if documented:
        lines += [".. autosummary::", "   :nosignatures:", "", *(f"   ~{path}" for path in documented), ""]
    for name, path in zip(names, paths):
        value = getattr(module, name)
        if inspect.isclass(value):
            lines += [f".. autoclass:: {path}", "   :members:", "   :show-inheritance:", ""]
        elif is_data(value):
            lines += [f".. py:data:: {path}", ""]
        else:
            lines += [f".. autofunction:: {path}", ""]
    return lines


def is_exported(module: ModuleType, name: str, exported: dict[str, str]) -> bool:
    """Whether the package that exports the name means this module's: two may have one of that name."""
    place = exported.get(name)
    return place is not None and getattr(sys.modules[place], name, None) is getattr(module, name)


def exports(modules: list[ModuleType]) -> dict[str, str]:
    """Name -> the package nearest to the root whose `__all__` has it."""
    packages = [module for module in reversed(modules) if hasattr(module, "__all__")]
    return {name: module.__name__ for module in packages for name in module.__all__}


def write_api(app: object) -> None:
    """docs/api/*.rst anew, so that no page of a module that is gone stays: one per package, and one more."""
    found = pkgutil.iter_modules(rethink_pretrain.__path__)
    pages = {name: (name,) for name in PACKAGES}
    pages["other"] = tuple(module.name for module in found if module.name not in PACKAGES)
    folder = DOCS / "api"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for title, names in pages.items():
        lines = [title, "=" * len(title), ""]
        for modules in map(modules_of, names):
            exported = exports(modules)
            for module in modules:
                lines += describe_module(module, exported)
        (folder / f"{title}.rst").write_text("\n".join(lines), encoding="utf-8")


def write_keys(app: object) -> None:
    """docs/api/keys.txt from config/defaults.py: what stands above a key there explains it here."""
    cfg = get_cfg()
    add_rethink_config(cfg)
    lines, comment, terms = [], [], []
    for line in [*map(str.strip, inspect.getsource(inspect.getmodule(add_rethink_config)).splitlines()), ""]:
        key = re.match(r"cfg\.([A-Z0-9_.]+) = (.*)", line)
        if key and key[2] != "CfgNode()":
            value = functools.reduce(getattr, key[1].split("."), cfg)
            value = dict(value) if isinstance(value, CfgNode) else value
            terms.append(f"``{key[1]}`` = ``{value!r}``".replace("'", '"'))
            continue
        if terms:  # keys in a row share their comment
            lines += [", ".join(terms), "   " + " ".join(comment).replace("*", "\\*"), ""]
            comment, terms = [], []
        if key and comment:
            lines += [f"**{key[1]}**: {' '.join(comment)}", ""]
            comment = []
        if line.startswith("#"):
            comment.append(line.removeprefix("# "))
    (DOCS / "api" / "keys.txt").write_text("\n".join(lines), encoding="utf-8")


def to_rest(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Two habits of our docstrings that reST does not know, in place.

    Lines such as "coverage: share of ..." at the start of a block become a list of fields, and a letter may
    stand behind code, as in `Run`s.
    """
    for i, line in enumerate(lines):
        if re.match(r"[a-z_]+: ", line) and (i == 0 or not lines[i - 1] or lines[i - 1][0] in ": "):
            lines[i] = f":{line}"
        lines[i] = re.sub(r"(`[^`\s][^`]*`)(?=\w)", r"\1\\ ", lines[i])


def setup(app: object) -> None:
    """Sphinx calls this."""
    app.connect("builder-inited", write_api)
    app.connect("builder-inited", write_keys)
    app.connect("autodoc-process-docstring", to_rest)
