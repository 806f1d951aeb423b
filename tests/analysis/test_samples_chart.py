"""The bars of figure 2: their lengths, their words, and that all of it is in the picture."""

from itertools import pairwise

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from rethink_pretrain.analysis.accounting import Account, Phase, Samples
from rethink_pretrain.analysis.figure_2 import figure_2
from rethink_pretrain.analysis.samples_chart import plot_samples


def words_of(axes):
    return [text.get_text() for text in axes.texts]


def lengths_of(axes):
    return [bar.get_width() for bar in axes.patches if bar.get_width()]


def account(name, pretraining, training):
    return Account(name, [Phase("pre-training", pretraining, ""), Phase("training", training, "")])


def test_the_papers_figure():
    panels = plot_samples(figure_2()).axes
    assert [panel.get_title("left") for panel in panels] == ["images", "instances", "pixels"]
    assert [words_of(panel) for panel in panels] == [
        ["131.0 M", "8.6 M"],
        ["149.1 M", "62.8 M"],
        ["9.5 T", "9.2 T"],
    ]
    assert lengths_of(panels[0]) == [128_116_700, 2_880_000, 8_640_000]
    assert panels[0].patches[1].get_x() == 128_116_700  # training goes on where pre-training ends


def test_unknown_is_said_and_never_a_zero():
    accounts = [account("a", None, Samples(5e6, None, 1e9)), account("b", None, None)]
    images, instances, pixels = plot_samples(accounts).axes
    assert words_of(images) == ["5.0 M + unknown", "unknown"]
    assert words_of(instances) == ["unknown", "unknown"]
    assert words_of(pixels) == ["1.0 G + unknown", "unknown"]


@pytest.mark.parametrize("number", [1, 2, 8])
def test_long_names_and_words_stay_in_the_picture(number):
    name = "paper/finetune_R101_gn_cascade_trainaug_6x_with_a_name_that_is_longer_than_$any_other$"
    accounts = [account(f"{name}{i}", Samples(1e9, 1e9, None), None) for i in range(number)]
    figure = plot_samples(accounts)
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    frame = figure.bbox
    labels = figure.axes[0].get_yticklabels()
    for axes in figure.axes:
        for text in [*axes.texts, *labels]:
            box = text.get_window_extent(renderer)
            assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
    tall = [label.get_window_extent(renderer) for label in labels]
    assert all(upper.y0 >= lower.y1 for upper, lower in pairwise(tall))
    first, second = figure.axes[:2]
    ends = [text.get_window_extent(renderer).x1 for text in first.texts]
    assert max(ends) < second.get_window_extent(renderer).x0
