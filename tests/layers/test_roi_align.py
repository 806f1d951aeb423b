"""RoIAlign as sums of pixels: torchvision's values and gradients, and one by hand."""

import copy

import pytest
import torch
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes

from rethink_pretrain.layers import use_fast_roi_align
from rethink_pretrain.layers.roi_align import PixelSumROIAlign


def both(settings, x, rois):
    """Values and gradients, of ours and of the host's."""
    ret = []
    for kind in (PixelSumROIAlign, ROIAlign):
        leaf = x.clone().requires_grad_()
        y = kind(*settings)(leaf, rois)
        torch.manual_seed(2)
        y.backward(torch.randn(y.shape))
        ret.append((y.detach(), leaf.grad))
    return ret


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("output_size", [(7, 7), (3, 5)])
def test_it_is_torchvisions(aligned, sampling_ratio, output_size):
    """Boxes inside, across each border, outside, thin, of no size, inside out, and of the whole image."""
    torch.manual_seed(0)
    x = torch.randn(2, 6, 25, 34)
    corner = torch.rand(60, 2) * torch.tensor([300.0, 220.0]) - 20
    boxes = torch.cat([corner, corner + torch.rand(60, 2) * 200], 1)
    special = [
        [0, 0, 272, 200],
        [-90, -90, -50, -50],
        [400, 300, 500, 400],
        [10, 10, 10, 10],
        [50, 60, 40, 30],
        [0.1, 3, 271, 3.2],
        [-4, -4, 4, 4],
        [268, 196, 280, 204],
        [16, 24, 72, 80],
    ]
    boxes = torch.cat([boxes, torch.tensor(special, dtype=torch.float32)])
    image = torch.arange(len(boxes))[:, None] % 2
    rois = torch.cat([image.float(), boxes], 1)
    (ours, our_gradient), (theirs, their_gradient) = both(
        (output_size, 1 / 8, sampling_ratio, aligned), x, rois
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("only", [slice(None), slice(0, 1)])
def test_wide_bins_among_narrow_ones(only):
    """A wire and a pole, which have bins of 20 and of 15 px, between boxes of usual size."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 120, 150)
    rois = [[0, 2, 3, 142, 7], [1, 9, 9, 60, 50], [1, 20, 5, 23, 110], [0, 1, 1, 30, 40]]
    rois = torch.tensor(rois, dtype=torch.float32)[only]
    (ours, our_gradient), (theirs, their_gradient) = both((7, 1.0, 0, True), x, rois)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(our_gradient, their_gradient, rtol=1e-4, atol=1e-4)


def test_by_hand():
    """One bin of 2 x 2 px has four samples, each amid of a pixel's square: their mean."""
    x = torch.arange(16.0).view(1, 1, 4, 4)
    y = PixelSumROIAlign((1, 1), 1.0, 0, True)(x, torch.tensor([[0.0, 1, 1, 3, 3]]))
    assert y.item() == (5 + 6 + 9 + 10) / 4


def test_a_pooler_of_several_levels_and_no_boxes():
    torch.manual_seed(0)
    plain = ROIPooler((7, 7), scales=(1 / 4, 1 / 8), sampling_ratio=0, pooler_type="ROIAlignV2")
    fast = copy.deepcopy(plain)
    use_fast_roi_align(fast)
    assert [type(each) for each in fast.level_poolers] == [PixelSumROIAlign] * 2
    maps = [torch.randn(2, 4, 64, 64), torch.randn(2, 4, 32, 32)]
    boxes = [Boxes(torch.tensor([[3.0, 5, 60, 70], [9, 9, 250, 240]])), Boxes(torch.zeros(0, 4))]
    torch.testing.assert_close(fast(maps, boxes), plain(maps, boxes), rtol=1e-4, atol=1e-5)
    assert fast(maps, [Boxes(torch.zeros(0, 4))] * 2).shape == (0, 4, 7, 7)


def test_other_types_are_the_hosts_own():
    x, rois = torch.randn(1, 2, 8, 8).double(), torch.tensor([[0.0, 1, 1, 6, 6]]).double()
    settings = ((2, 2), 1.0, 0, True)
    assert torch.equal(PixelSumROIAlign(*settings)(x, rois), ROIAlign(*settings)(x, rois))
