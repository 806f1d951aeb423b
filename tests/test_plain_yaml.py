"""YAML of strangers: what is refused before it is built, and what passes as it is."""

import itertools
import os

import pytest
import yaml
from conftest import REPOSITORY

from rethink_pretrain.errors import UserError
from rethink_pretrain.plain_yaml import MAX_BYTES, MAX_NODES, read_plain_yaml

ALL_CONFIGS = sorted((REPOSITORY / "configs").rglob("*.yaml"))


@pytest.fixture
def read(tmp_path):
    """Writes text or bytes to a file and reads it."""

    def read(content: str | bytes) -> str:
        path = tmp_path / "a.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_plain_yaml(str(path))

    return read


def refusal(read, content: str | bytes) -> str:
    with pytest.raises(UserError) as info:
        read(content)
    assert "\n" not in str(info.value) and "a.yaml" in str(info.value)
    return str(info.value)


def levels(first: str, more: str) -> str:
    """Nine levels, each of ten aliases of the one before."""
    names = "abcdefghij"
    lines = [f"a: &a {first}"]
    for below, name in itertools.pairwise(names):
        lines.append(f"{name}: &{name} {more.format(', '.join([f'*{below}'] * 10))}")
    return "\n".join(lines)


@pytest.mark.parametrize("path", ALL_CONFIGS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_config_of_ours_passes(path):
    assert read_plain_yaml(str(path)) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text", ["", "# nothing", "5", "- a\n- b", "a: &x [1, 2]\nb: *x\nc: {d: *x}", "é: ü"]
)
def test_what_is_only_text_passes(read, text):
    assert read(text) == text
    yaml.safe_load(text)


@pytest.mark.parametrize(
    "bomb",
    [
        levels("[x, x]", "[{}]"),
        levels("{x: 1}", "{{<<: [{}]}}"),
        levels("[x]", "{{k: [{}]}}"),
        "a: &a [" + ", ".join(["x"] * 1000) + "]\nb: [" + ", ".join(["*a"] * 1000) + "]",
    ],
)
def test_aliases_that_multiply(read, bomb):
    assert len(bomb) < 20_000
    assert f"aliases multiply this to more than {MAX_NODES:,} values" in refusal(read, bomb)


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a: &a {b: [1, {c: *a}]}", "&a [*a]"])
def test_aliases_of_themselves(read, text):
    assert "contains itself" in refusal(read, text)


@pytest.mark.parametrize("opening", ["[", "{a: ", "? ", "- ", "!!seq ["])
def test_nesting(read, opening):
    assert "nested too deeply" in refusal(read, opening * 5000 + "1")


@pytest.mark.parametrize("depth", [60, 200, 300, 400])
def test_depths_that_python_can_follow_in_one_place_and_not_in_another(read, depth):
    assert "nested too deeply" in refusal(read, "[" * depth + "]" * depth)


def test_depth_by_aliases(read):
    lines = ["a0: &a0 " + "[" * 40 + "]" * 40]
    lines += [f"a{n}: &a{n} " + "[" * 40 + f"*a{n - 1}" + "]" * 40 for n in range(1, 100)]
    assert "line 2: nested too deeply" in refusal(read, "\n".join(lines))


@pytest.mark.parametrize(
    ("text", "line", "first"),
    [
        ("A: 1\nB: 2\nA: 3", 3, 1),
        ("A: {B: 1, B: 1}", 1, 1),
        ("A:\n  - {C: 1}\n  - C: 1\n    D: 2\n    'C': 3", 5, 3),
        ('A: 1\n"A": 2', 2, 1),
        ("<<: {A: 1}\n<<: {B: 1}", 2, 1),
        ("A: &x {B: 1}\nC: {D: 1, D: *x}", 2, 2),
    ],
)
def test_a_key_twice(read, text, line, first):
    message = refusal(read, text)
    assert f"a.yaml, line {line}: key " in message and f"stands in line {first} already" in message


@pytest.mark.parametrize("text", ["A: {X: 1}\nB: {X: 1}", "1: a\n'1': b", "- A: 1\n- A: 1"])
def test_equal_keys_of_two_mappings(read, text):
    assert read(text) == text


def test_size(read):
    comment = "#" * (MAX_BYTES - 1) + "\n"
    assert read(comment) == comment
    assert f"more than {MAX_BYTES // 1024} KiB" in refusal(read, comment + "\n")


def test_nul(read):
    assert "line 2: a value with a NUL character" in refusal(read, 'A: 1\nB: "x\\0y"')
    with pytest.raises(yaml.YAMLError):
        read(b"A: 1\nB: x\0y")


@pytest.mark.parametrize("content", [b"A: \xff", "A: ä".encode("latin1"), "A: 1".encode("utf-16")])
def test_not_utf8(read, content):
    with pytest.raises(UnicodeDecodeError):
        read(content)


@pytest.mark.parametrize("url", ["https://example.org/a.yaml", "file:///etc/a.yaml", "folder/s3://b/a.yaml"])
def test_urls(url):
    with pytest.raises(UserError, match=f"{url}: configs are files, and never fetched"):
        read_plain_yaml(url)


def test_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # would wait for a writer
    for path in ("/dev/zero", str(tmp_path / "pipe")):
        with pytest.raises(UserError, match=f"{path} is a device or a pipe"):
            read_plain_yaml(path)
    with pytest.raises(IsADirectoryError):
        read_plain_yaml(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        read_plain_yaml(str(tmp_path / "none"))


def test_errors_of_syntax_name_file_and_line(read, tmp_path):
    with pytest.raises(yaml.YAMLError) as info:
        read("A: 1\nB: [1\nC: 2\n")
    assert (info.value.problem_mark.name, info.value.problem_mark.line) == (str(tmp_path / "a.yaml"), 2)
