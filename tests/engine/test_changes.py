import pytest

from rethink_pretrain.engine.changes import find_changes, refuse_another_batch
from rethink_pretrain.errors import UserError


@pytest.fixture
def cfg(short_cfg, tmp_path):
    """A config whose run has left config.yaml."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(short_cfg.dump())
    return short_cfg


def test_the_same_config_changes_nothing(cfg):
    assert find_changes(cfg) == []
    refuse_another_batch(cfg)


def test_what_matters_to_training_is_named_with_both_values(cfg):
    cfg.SOLVER.BASE_LR, before = 0.5, cfg.SOLVER.BASE_LR
    cfg.DATASETS.TRAIN = ("toy_val",)
    assert [str(change) for change in find_changes(cfg)] == [
        "DATASETS.TRAIN ['toy_train'] -> ['toy_val']",
        f"SOLVER.BASE_LR {before} -> 0.5",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("DATALOADER.NUM_WORKERS", 7),
        ("TEST.EVAL_PERIOD", 7),
        ("SOLVER.CHECKPOINT_PERIOD", 7),
        ("RETHINK.WATCH.IMAGES", 7),
        ("RETHINK.KEEP_CHECKPOINTS", 7),
        ("MODEL.DEVICE", "cuda"),
    ],
)
def test_what_does_not_matter_is_not(cfg, key, value):
    cfg.merge_from_list([key, value])
    assert find_changes(cfg) == []


def test_another_batch_is_refused(cfg):
    cfg.SOLVER.IMS_PER_BATCH = 4
    with pytest.raises(UserError, match=r"takes 2 images per step, this command 4\. Resume it with"):
        refuse_another_batch(cfg)


@pytest.mark.parametrize("content", ["", "SOLVER: {BASE_LR: [", "- a\n", "SOLVER: !!python/name:os.system\n"])
def test_a_torn_or_strange_file_tells_nothing(cfg, tmp_path, content):
    (tmp_path / "run" / "config.yaml").write_text(content)
    cfg.SOLVER.IMS_PER_BATCH = 4
    assert find_changes(cfg) == []
