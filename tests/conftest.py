"""A small toy set and a small config on it, made once for all tests that train."""

# First of all: it refuses to come after Python's distutils, and torch imports it late.
import setuptools  # noqa: F401  # isort: skip

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import detectron2
import pytest
from detectron2.config import CfgNode

from rethink_pretrain.config import load_config
from rethink_pretrain.data import register_toy
from rethink_pretrain.data.datasets.toy import make_toy_dataset

REPOSITORY = Path(__file__).resolve().parents[1]
TOY_CONFIG = REPOSITORY / "configs" / "toy" / "scratch_mask_rcnn_R_18_FPN_gn.yaml"

# Six iterations of two 64 px images: seconds, and every part of the pipeline runs.
SHORT_RUN = [
    *("SOLVER.IMS_PER_BATCH", "2", "RETHINK.SCHEDULE", "12 images", "RETHINK.REFERENCE_WARMUP_ITERS", "0"),
    *("SOLVER.CHECKPOINT_PERIOD", "3", "TEST.EVAL_PERIOD", "0", "SEED", "7", "DATALOADER.NUM_WORKERS", "0"),
    *("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MAX_SIZE_TRAIN", "64"),
    *("INPUT.MIN_SIZE_TEST", "64", "INPUT.MAX_SIZE_TEST", "64"),
]


# The paper's schedules: iterations of 16 images and the two drops.
PAPER_SCHEDULES = {
    "1x": (90_000, (60_000, 80_000)),
    "2x": (180_000, (120_000, 160_000)),
    "3x": (270_000, (210_000, 250_000)),
    "4x": (360_000, (300_000, 340_000)),
    "5x": (450_000, (390_000, 430_000)),
    "6x": (540_000, (480_000, 520_000)),
    "9x": (810_000, (750_000, 790_000)),
    "11x": (990_000, (930_000, 970_000)),
}


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """A test that starts a run leaves handlers that write into its own, closed, streams; a tool, a level."""
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "rethink_pretrain")]
    before = [(logger.handlers.copy(), logger.propagate, logger.level) for logger in loggers]
    root_level = logging.root.level  # pytest has handlers of its own there
    yield
    logging.root.setLevel(root_level)
    for logger, (handlers, propagate, level) in zip(loggers, before):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def host_config_file(name: str) -> Path:
    """A file of the host's model zoo; skips where this Detectron2 came without them."""
    package = Path(detectron2.__file__).parent
    # An installed host has its configs in model_zoo; a source tree only beside the package.
    for folder in (package / "model_zoo" / "configs", package.parent / "configs"):
        if (folder / name).is_file():
            return folder / name
    pytest.skip("this Detectron2 came without its configs")


def flatten(node: CfgNode, prefix: str = "") -> dict:
    ret = {}
    for key, value in node.items():
        name = f"{prefix}{key}"
        ret.update(flatten(value, f"{name}.") if isinstance(value, CfgNode) else {name: value})
    return ret


@pytest.fixture(scope="session")
def datasets(tmp_path_factory) -> Path:
    """A data set folder that holds toy/ of 24 + 12 images, for this process and its children."""
    root = tmp_path_factory.mktemp("datasets")
    make_toy_dataset(root / "toy", num_train=24, num_val=12, image_size=64, seed=0, num_workers=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(root))
        register_toy()
        yield root


@pytest.fixture
def short_cfg(datasets, tmp_path):
    """A resolved config of six iterations that writes into tmp_path/run."""
    cfg = load_config(TOY_CONFIG, opts=[*SHORT_RUN, "OUTPUT_DIR", str(tmp_path / "run")])
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def pytest_configure() -> None:
    """A shell starts what it runs in the background deaf to SIGINT, and so would be what the tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
