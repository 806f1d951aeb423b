import pytest

from rethink_pretrain.data.quote import is_text, quoted


def nested(depth):
    ret = []
    for _ in range(depth):
        ret = [ret, ret]
    return ret


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (None, "None"), ("a", "'a'"), ([1, 2.5], "[1, 2.5]"), ({}, "{}"), ("a\nb", r"'a\nb'")],
)
def test_small_values_are_shown_as_they_are(value, text):
    assert quoted(value) == text


@pytest.mark.parametrize(
    "value", ["x" * 10**6, 10**4000, [[1.5] * 99] * 99, nested(500), {"a" * 99: "b" * 99}, "\ud800\x1b\n"]
)
def test_anything_is_one_short_line(value):
    text = quoted(value)
    assert len(text) <= 60 and text.isprintable()


@pytest.mark.parametrize(
    ("value", "expected"), [("ä\n", True), ("", True), ("\ud800", False), (None, False), (7, False)]
)
def test_text(value, expected):
    assert is_text(value) is expected
