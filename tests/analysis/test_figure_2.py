"""The six values that the paper prints in its figure 2, and the arithmetic shown for them."""

import math
import re

import pytest

from rethink_pretrain.analysis.accounting import describe_samples
from rethink_pretrain.analysis.figure_2 import NOTE, figure_2, working

PRINTED = {
    "pre-train + fine-tune": ["131.0 M", "149.1 M", "9.5 T"],
    "from random": ["8.6 M", "62.8 M", "9.2 T"],
}


@pytest.mark.parametrize("number", range(3), ids=["images", "instances", "pixels"])
@pytest.mark.parametrize("bar", PRINTED)
def test_printed_value(bar, number):
    (account,) = [account for account in figure_2() if account.name == bar]
    assert describe_samples(account.total)[number] == PRINTED[bar][number]
    panel = "\n".join(working()).split(":\n")[number + 1]
    (line,) = [line for line in panel.splitlines() if line.startswith(f"  {bar}:")]
    assert line.endswith(f", or {PRINTED[bar][number]}")


def test_exact_totals():
    """By hand from the paper's recipe."""
    tuned, scratch = (account.total for account in figure_2())
    assert tuned.images == 128_116_700 + 2_880_000 and scratch.images == 8_640_000
    assert tuned.instances == pytest.approx(128_116_700 + 2_880_000 * 7.270461, rel=1e-6)
    assert scratch.instances == pytest.approx(8_640_000 * 7.270461, rel=1e-6)
    assert tuned.pixels == 128_116_700 * 50_176 + 2_880_000 * 1_066_400
    assert scratch.pixels == 8_640_000 * 1_066_400


def test_every_line_of_the_working_is_right():
    """What stands left of "=" is calculated anew."""
    checked = 0
    for line in working():
        if " = " in line:
            left, right = line.split(": ", 1)[1].split(" = ")
            left = re.sub(r"[a-z]{2,}", "", left.replace(",", "")).replace("x", "*")
            value = float(right.partition(", or")[0].replace(",", ""))
            assert math.isclose(eval(left, {}), value, abs_tol=0.5)
            checked += 1
    assert checked == 12


def test_the_note_tells_what_the_legend_would_give():
    assert "8.28 M" in NOTE and "115,000 images x 72 epochs" in NOTE
