"""Test loaders of several images: their order, their sizes, and the results of a model."""

import pytest
import torch

from rethink_pretrain.engine.trainer import Trainer
from rethink_pretrain.errors import UserError
from rethink_pretrain.evaluation import in_batches


def test_order_is_kept_and_boxes_are_those_of_single_images(short_cfg):
    single = Trainer.build_test_loader(short_cfg, short_cfg.DATASETS.TEST[0])._loader
    batched = in_batches(single, 5)
    one_by_one = [image for batch in single for image in batch]
    together = list(batched)
    assert [len(batch) for batch in together] == [5, 5, 2]
    assert [i["image_id"] for batch in together for i in batch] == [i["image_id"] for i in one_by_one]
    model = Trainer.build_model(short_cfg).eval()
    with torch.no_grad():
        expected = [model([image])[0]["instances"] for image in one_by_one[:5]]
        found = [output["instances"] for output in model(together[0])]
    for a, b in zip(expected, found, strict=True):
        assert len(a) == len(b)
        assert torch.allclose(a.scores, b.scores, atol=1e-4)


def test_one_is_the_loader_itself_and_none_is_refused(short_cfg):
    loader = object()
    assert in_batches(loader, 1) is loader
    with pytest.raises(UserError, match="TEST_BATCH is 0"):
        in_batches(loader, 0)
