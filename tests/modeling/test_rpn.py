"""BatchTopkRPN: its choice against a sort by hand, everything else against the host's RPN."""

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_proposal_generator
from detectron2.modeling.proposal_generator import RPN
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage

from rethink_pretrain.config import add_rethink_config
from rethink_pretrain.modeling.rpn import BatchTopkRPN, keep_best_of_batch

SIZES = [(64, 96), (60, 80), (64, 90)]  # (height, width) of three images in a batch of 64 x 96
CHANNELS = 8


def make_proposals(scores: list[list[float]]) -> list[Instances]:
    """One image per list; the box of each proposal tells which one it is."""
    ret = []
    for image, values in enumerate(scores):
        instances = Instances(SIZES[image % len(SIZES)])
        corner = torch.tensor([[image, index] for index in range(len(values))], dtype=torch.float32)
        instances.proposal_boxes = Boxes(torch.cat([corner, corner + 5], 1).reshape(-1, 4))
        instances.objectness_logits = torch.tensor(values, dtype=torch.float32)
        ret.append(instances)
    return ret


def contents(proposals: list[Instances]) -> list[tuple[tuple[int, int], list[list[float]], list[float]]]:
    return [
        (image.image_size, image.proposal_boxes.tensor.tolist(), image.objectness_logits.tolist())
        for image in proposals
    ]


def keep_by_hand(proposals: list[Instances], topk: int) -> list[tuple]:
    """Sort all scores, take the `topk`-th, and go through every image with it."""
    scores = sorted((score for _, _, image in contents(proposals) for score in image), reverse=True)
    least = scores[topk - 1] if len(scores) >= topk else float("-inf")
    kept = []
    for size, boxes, image_scores in contents(proposals):
        pairs = [(box, score) for box, score in zip(boxes, image_scores) if score >= least]
        kept.append((size, [box for box, _ in pairs], [score for _, score in pairs]))
    return kept


def random_scores(counts: list[int], seed: int) -> list[list[float]]:
    """Different scores, descending within each image as the host returns them."""
    order = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(seed)).float()
    return [part.sort(descending=True).values.tolist() for part in order.split(counts)]


class TestKeepBestOfBatch:
    @pytest.mark.parametrize("counts", [[7, 3, 5], [10, 0], [0, 1, 0], [4], [20, 20, 20, 20]])
    @pytest.mark.parametrize("topk", [1, 2, 5, 9, 15, 80, 1000])
    def test_against_a_sort(self, counts, topk):
        for seed in range(5):
            proposals = make_proposals(random_scores(counts, seed))
            expected = keep_by_hand(proposals, topk)
            kept = keep_best_of_batch(proposals, topk)
            assert contents(kept) == expected
            assert sum(len(image) for image in kept) == min(topk, sum(counts))

    def test_an_example(self):
        """Of the best four the first image has three, the second one, the third none."""
        kept = keep_best_of_batch(make_proposals([[9, 8, 6, 1], [7, 2], [0.5]]), 4)
        assert [image.objectness_logits.tolist() for image in kept] == [[9, 8, 6], [7], []]
        assert kept[0].proposal_boxes.tensor[:, 1].tolist() == [0, 1, 2]

    def test_order_within_an_image_stays(self):
        """Also where an image is not sorted."""
        kept = keep_best_of_batch(make_proposals([[1, 9, 3, 7], [8, 2, 6]]), 4)
        assert [image.objectness_logits.tolist() for image in kept] == [[9, 7], [8, 6]]

    def test_equals_of_the_last_stay(self):
        kept = keep_best_of_batch(make_proposals([[5, 3, 3], [4, 3, 2]]), 3)
        assert [image.objectness_logits.tolist() for image in kept] == [[5, 3, 3], [4, 3]]

    def test_no_proposals_at_all(self):
        assert [len(image) for image in keep_best_of_batch(make_proposals([[], []]), 5)] == [0, 0]

    def test_input_is_not_changed(self):
        proposals = make_proposals([[9, 8, 6, 1], [7, 2]])
        before = contents(proposals)
        keep_best_of_batch(proposals, 2)
        assert contents(proposals) == before


def make_cfg(name: str, topk_train: int, topk_test: int = 10) -> CfgNode:
    cfg = get_cfg()
    add_rethink_config(cfg)
    cfg.MODEL.PROPOSAL_GENERATOR.NAME = name
    cfg.MODEL.RPN.update(
        IN_FEATURES=["p2", "p3"],
        PRE_NMS_TOPK_TRAIN=60,
        PRE_NMS_TOPK_TEST=40,
        POST_NMS_TOPK_TRAIN=topk_train,
        POST_NMS_TOPK_TEST=topk_test,
    )
    cfg.MODEL.ANCHOR_GENERATOR.update(SIZES=[[8], [16]], ASPECT_RATIOS=[[0.5, 1.0, 2.0]])
    return cfg


def build(name: str, topk_train: int) -> RPN:
    """Weights far larger than the initial ones, so that scores and boxes differ between places."""
    shape = {"p2": ShapeSpec(CHANNELS, stride=4), "p3": ShapeSpec(CHANNELS, stride=8)}
    rpn = build_proposal_generator(make_cfg(name, topk_train), shape)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in rpn.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return rpn


def run_rpn(rpn: RPN, training: bool = True) -> tuple[list[Instances], dict[str, torch.Tensor]]:
    """One forward pass; the features of the first image are the strongest, those of the last the weakest."""
    generator = torch.Generator().manual_seed(1)
    strength = torch.tensor([3.0, 1.0, 0.3])[:, None, None, None]
    features = {
        "p2": strength * torch.randn(3, CHANNELS, 16, 24, generator=generator),
        "p3": strength * torch.randn(3, CHANNELS, 8, 12, generator=generator),
    }
    images = ImageList(torch.zeros(3, 3, 64, 96), SIZES)
    gt = []
    for size in SIZES:
        instances = Instances(size)
        instances.gt_boxes = Boxes(torch.tensor([[4.0, 4, 20, 16], [30, 10, 50, 50]]))
        gt.append(instances)
    torch.manual_seed(2)  # the sampling of anchors
    with EventStorage():
        return rpn.train(training)(images, features, gt if training else None)


class TestBatchTopkRPN:
    def test_registered(self):
        assert type(build("BatchTopkRPN", 5)) is BatchTopkRPN

    def test_parameters_are_the_hosts(self):
        ours, host = build("BatchTopkRPN", 5), build("RPN", 5)
        assert {k: v.shape for k, v in ours.state_dict().items()} == {
            k: v.shape for k, v in host.state_dict().items()
        }

    def test_equals_the_host_where_nothing_is_dropped(self):
        ours, our_losses = run_rpn(build("BatchTopkRPN", 1000))
        host, host_losses = run_rpn(build("RPN", 1000))
        assert sum(len(image) for image in host) > 100
        assert contents(ours) == contents(host)
        torch.testing.assert_close(our_losses, host_losses, rtol=0, atol=0)

    @pytest.mark.parametrize("topk", [1, 5, 20])
    def test_best_of_all_that_the_host_finds(self, topk):
        everything, _ = run_rpn(build("RPN", 1000))
        kept, losses = run_rpn(build("BatchTopkRPN", topk))
        assert contents(kept) == keep_by_hand(everything, 3 * topk)
        torch.testing.assert_close(losses, run_rpn(build("RPN", topk))[1], rtol=0, atol=0)

    def test_shares_follow_the_scores(self):
        """Three images of 20 proposals each in the host; here the strong one has more, the weak one less."""
        ours, _ = run_rpn(build("BatchTopkRPN", 20))
        host, _ = run_rpn(build("RPN", 20))
        assert [len(image) for image in host] == [20, 20, 20]
        counts = [len(image) for image in ours]
        assert sum(counts) == 60
        assert counts[0] > 20 > counts[2]

    def test_testing_is_per_image(self):
        ours, losses = run_rpn(build("BatchTopkRPN", 1), training=False)
        host, _ = run_rpn(build("RPN", 1), training=False)
        assert losses == {}
        assert [len(image) for image in ours] == [10, 10, 10]
        assert contents(ours) == contents(host)

    def test_best_first(self):
        for training in (True, False):
            for image in run_rpn(build("BatchTopkRPN", 20), training)[0]:
                scores = image.objectness_logits
                assert (scores[:-1] >= scores[1:]).all()
