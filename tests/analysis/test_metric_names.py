"""Metrics in words and in order."""

import pytest

from rethink_pretrain.analysis.metric_names import OF_CATEGORY, capital, order, spell


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("bbox/AP", "box AP"),
        ("segm/APl", "mask AP, large objects"),
        ("tta/keypoints/AP75", "tta keypoint AP75"),
        ("panoptic_seg/PQ", "panoptic PQ"),
    ],
)
def test_words(metric, words):
    assert spell(metric) == words


def test_order():
    metrics = [
        "other/x",
        "segm/AP",
        "bbox/APs",
        "bbox/zeal",
        "bbox/AP75",
        "bbox/AP",
        "sem_seg/mIoU",
        "bbox/AP50",
    ]
    assert sorted(metrics, key=order) == [
        *("bbox/AP", "bbox/AP50", "bbox/AP75", "bbox/APs", "bbox/zeal"),
        *("segm/AP", "sem_seg/mIoU", "other/x"),
    ]


def test_categories():
    match = OF_CATEGORY.fullmatch("bbox/AP-t-shirt / top")
    assert match["metric"] == "bbox/AP" and match["category"] == "t-shirt / top"
    assert OF_CATEGORY.fullmatch("sem_seg/IoU-sky") and not OF_CATEGORY.fullmatch("bbox/AP50")


def test_capital():
    assert [capital(words) for words in ("box AP", "", "R-50")] == ["Box AP", "", "R-50"]
