"""YAML files from anyone, looked at before anything is built from them."""

import os

import yaml

from .errors import UserError

MAX_BYTES = 1 << 18  # a dumped config has 15 thousand
MAX_NODES = 100_000  # one has a thousand; aliases count each time that they are used
MAX_DEPTH = 50  # one has 6


def read_plain_yaml(path: str) -> str:
    """The text of a YAML file, of which safe loading builds what stands there and no more.

    Raises `UserError` for a URL, a device, a long or deeply nested file, a mapping that has a key twice, and
    aliases that multiply or contain themselves; otherwise what `open`, `decode` and PyYAML raise.
    """
    text = _read(path)
    node = _compose(path, text)
    if node is not None:
        _measure(node, {})
    return text


def _read(path: str) -> str:
    if "://" in path:
        raise UserError(f"{path}: configs are files, and never fetched. Download it and look at it first.")
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise UserError(f"{path} is a device or a pipe, not a config file.")  # it may never end
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UserError(f"{path} is no config: it has more than {MAX_BYTES // 1024} KiB.")
    return content.decode("utf-8")


def _compose(path: str, text: str) -> yaml.Node | None:
    loader = yaml.SafeLoader(text)
    loader.name = path  # for the marks of errors
    try:
        return loader.get_single_node()
    except RecursionError:
        raise UserError(f"{path}: nested too deeply for a config.") from None
    finally:
        loader.dispose()


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """How many nodes `node` has and how deep they go, where each alias stands for all of its own.

    `known`: of nodes seen before; None is one that is still open.
    """
    if id(node) not in known:
        known[id(node)] = None
        _check_node(node)
        below = [_measure(child, known) for child in _children(node)]
        known[id(node)] = (
            1 + sum(size for size, _ in below),
            1 + max((depth for _, depth in below), default=0),
        )
    measures = known[id(node)]
    if measures is None:
        raise UserError(f"{_place(node)}: this contains itself, by an alias.")
    if measures[0] > MAX_NODES:
        raise UserError(f"{_place(node)}: aliases multiply this to more than {MAX_NODES:,} values.")
    if measures[1] > MAX_DEPTH:
        raise UserError(f"{_place(node)}: nested too deeply for a config.")
    return measures


def _check_node(node: yaml.Node) -> None:
    if isinstance(node, yaml.MappingNode):
        _check_keys_differ(node)
    elif isinstance(node, yaml.ScalarNode) and "\0" in node.value:
        raise UserError(f"{_place(node)}: a value with a NUL character.")


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _check_keys_differ(node: yaml.MappingNode) -> None:
    """YAML loaders keep the last of two equal keys, and say nothing."""
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue  # none of a config's
        if first := lines.get((key.tag, key.value)):
            raise UserError(f"{_place(key)}: key {key.value!r} stands in line {first} already.")
        lines[key.tag, key.value] = key.start_mark.line + 1


def _place(node: yaml.Node) -> str:
    return f"{node.start_mark.name}, line {node.start_mark.line + 1}"
