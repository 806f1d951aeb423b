"""From files and command line to one resolved, validated config. The only reader of YAML."""

import difflib
import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg

from ..errors import UserError
from ..plain_yaml import read_plain_yaml
from .defaults import add_rethink_config
from .resolve import resolve
from .validate import validate

_MAX_FILES = 100  # that one file may bring in by _BASE_
# The last two are of Python's parser, which reads values that are text.
_YACS_ERRORS = (ValueError, AssertionError, MemoryError, RecursionError)


def load_config(
    config_file: str | Path, overlays: Sequence[str | Path] = (), opts: Sequence[str] = ()
) -> CfgNode:
    """Merge `config_file` (with its `_BASE_` files), the overlay files in order, then KEY VALUE pairs.

    The result is resolved and validated, and not frozen. An overlay is a path, or the name of a file of
    the `_overlay` folder beside `config_file`. Raises `UserError`, which names file and key, for whatever
    cannot be read or does not fit.
    """
    cfg = get_cfg()
    add_rethink_config(cfg)
    for path in (Path(config_file), *(find_overlay(name, Path(config_file)) for name in overlays)):
        _merge_file(cfg, path)
    _merge_opts(cfg, list(opts))
    resolve(cfg)
    validate(cfg)
    return cfg


def find_configs(folder: Path) -> list[Path]:
    """All configs below `folder` that can be trained: neither overlays nor sweeps."""
    skipped = {"_overlay", "sweeps"}
    return sorted(path for path in folder.rglob("*.yaml") if not skipped & {*path.relative_to(folder).parts})


def find_overlay(name: str | Path, config_file: Path) -> Path:
    """The overlay file of that path or name; see `load_config`."""
    folders = [parent / "_overlay" for parent in config_file.resolve().parents]
    for candidate in (Path(name), *(folder / f"{name}.yaml" for folder in folders)):
        if candidate.is_file():
            return candidate
    known = sorted(file.stem for folder in folders if folder.is_dir() for file in folder.glob("*.yaml"))
    raise UserError(f"Overlay {str(name)!r} is neither a file nor one of: {', '.join(known)}.")


def _merge_file(cfg: CfgNode, path: Path) -> None:
    if not path.exists():
        raise UserError(f"Config file {str(path)!r} does not exist. Ours are in configs/ (see its README).")
    loaded = _load_file(path)
    if not isinstance(loaded, dict):
        raise UserError(f"{path}: not a config of KEY: VALUE lines, but {type(loaded).__name__}.")
    _check_keys(cfg, loaded, str(path))
    if loaded.get("RETHINK", {}).get("TRUST_PICKLE", False) is not False:
        raise UserError(
            f"{path}: RETHINK.TRUST_PICKLE lets weights run code, so no file can set it. Give --trust-pickle "
            "if you know who made the weights."
        )
    _merge(cfg, loaded, str(path))


def _load_file(path: Path) -> Any:
    """What the file and its `_BASE_` files hold together."""
    try:
        # Not the host's merge_from_file: by default that builds any Python object a YAML tag asks for.
        return _make_reader(path).load_yaml_with_base(str(path), allow_unsafe=False)
    except UserError:
        raise
    except yaml.YAMLError as error:
        raise UserError(_describe_yaml_error(error, path)) from None
    except FileNotFoundError as error:
        raise UserError(f"{path}: its _BASE_ file {error.filename!r} does not exist.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: this file or a _BASE_ of it cannot be read: {error}.") from None
    except (TypeError, AttributeError, AssertionError) as error:
        raise UserError(f"{path}: not a config of KEY: VALUE lines ({error}).") from None
    except (ValueError, LookupError, OverflowError) as error:  # of PyYAML, for a date of month 13 or so
        raise UserError(f"{path}: this file or a _BASE_ of it has a value that is none ({error}).") from None


def _make_reader(path: Path) -> type[CfgNode]:
    """The host's, which merges `_BASE_` files, but for plain YAML alone, and not endlessly many."""
    count = itertools.count(1)

    class Reader(CfgNode):
        @classmethod
        def _open_cfg(cls, filename: str) -> io.StringIO:
            if next(count) > _MAX_FILES:
                raise UserError(f"{path}: more than {_MAX_FILES} files by _BASE_. Is there a circle?")
            file = io.StringIO(read_plain_yaml(filename))
            file.name = filename  # which PyYAML's messages quote
            return file

    return Reader


def _describe_yaml_error(error: yaml.YAMLError, path: Path) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"{mark.name}, line {mark.line + 1}" if mark else str(path)
    if isinstance(error, yaml.constructor.ConstructorError):
        return f"{where}: {error.problem}. Configs are plain YAML; tags that build objects are refused."
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    return f"{where}: not valid YAML ({problem})."


def _merge_opts(cfg: CfgNode, opts: list[str]) -> None:
    flag = next((opt for opt in opts if opt.startswith("--")), None)
    if flag:  # argparse leaves everything behind the first KEY to us
        raise UserError(f"{flag} stands behind KEY VALUE pairs. Put it before them.")
    if len(opts) % 2:
        raise UserError(f"Command-line options come as KEY VALUE pairs; {opts[-1]!r} has no partner.")
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        _check_keys(cfg, _nest(key, value), "command line")
        try:
            cfg.merge_from_list([key, value])
        except _YACS_ERRORS as error:
            raise UserError(f"command line: {key} {value}: {_describe_yacs_error(error)}") from None


def _nest(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _merge(cfg: CfgNode, loaded: dict[str, Any], where: str) -> None:
    try:
        cfg.merge_from_other_cfg(CfgNode(loaded))
    except _YACS_ERRORS as error:
        raise UserError(f"{where}: {_describe_yacs_error(error)}") from None


def _describe_yacs_error(error: Exception) -> str:
    """Its words, as in "Type mismatch (int vs. str) with values (16 vs. x) for config key: k"."""
    if isinstance(error, (MemoryError, RecursionError)):
        return "a value is nested too deeply."
    return re.sub(r"<class '(\w+)'>", r"\1", str(error))


def _check_keys(node: CfgNode, loaded: dict[str, Any], where: str, prefix: str = "") -> None:
    for key, value in loaded.items():
        name = f"{prefix}{key}"
        if key not in node:
            raise UserError(f"{where}: unknown config key {name}. {_suggest(str(key), node, prefix)}")
        if isinstance(node[key], CfgNode):
            if not isinstance(value, dict):
                raise UserError(f"{where}: {name} is a group of keys ({', '.join(node[key])}), not a value.")
            _check_keys(node[key], value, where, f"{name}.")
        elif isinstance(value, dict):
            below = ".".join([name, *map(str, list(value)[:1])])
            raise UserError(f"{where}: unknown config key {below}: {name} is a single value.")


def _suggest(key: str, node: CfgNode, prefix: str) -> str:
    close = difflib.get_close_matches(key.upper(), list(node), n=1)
    hint = f"Did you mean {prefix}{close[0]}? " if close else ""
    return f"{hint}Valid here: {', '.join(sorted(node))}."
