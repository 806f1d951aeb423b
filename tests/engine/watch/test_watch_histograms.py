"""Read back by TensorBoard's own reader."""

import numpy as np
import pytest
import torch
from detectron2.engine import TrainerBase, hooks
from detectron2.utils.events import TensorboardXWriter
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from rethink_pretrain.engine.watch.histograms import Histograms


class OneLayer(TrainerBase):
    """Weights 0 to 7, frozen bias, and in step i gradients of i, one of them infinite in the last step."""

    def __init__(self, output, period):
        super().__init__()
        self.model = nn.Linear(4, 2)
        self.model.weight.data = torch.arange(8.0).reshape(2, 4)
        self.model.bias.requires_grad = False
        writer = hooks.PeriodicWriter([TensorboardXWriter(str(output))], 1)
        self.register_hooks([Histograms(period), writer])

    def run_step(self):
        self.model.weight.grad = torch.full((2, 4), float(self.iter))
        if self.iter == 3:
            self.model.weight.grad[0, 0] = float("inf")


def test_weights_and_gradients_of_what_trains(tmp_path):
    OneLayer(tmp_path, period=2).train(0, 4)
    events = EventAccumulator(str(tmp_path), size_guidance={"histograms": 0}).Reload()
    assert sorted(events.Tags()["histograms"]) == ["gradients/weight", "weights/weight"]
    weights = events.Histograms("weights/weight")
    assert [event.step for event in weights] == [1, 3]
    histogram = weights[-1].histogram_value
    assert (histogram.min, histogram.max, histogram.num) == (0, 7, 8)
    assert histogram.sum_squares == pytest.approx((np.arange(8) ** 2).sum())
    assert sum(histogram.bucket) == 8
    first, last = (event.histogram_value for event in events.Histograms("gradients/weight"))
    assert (first.num, first.sum) == (8, 8) and (last.num, last.sum) == (7, 21)
