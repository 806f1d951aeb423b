"""The two trainers that are killed: this project's, by its own command, and Detectron2's DefaultTrainer."""

import argparse
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, default_setup
from detectron2.evaluation import COCOEvaluator

from ...config import load_config
from ...data import register_toy
from ...data.datasets.toy import make_toy_dataset

_PIXELS = 64  # sides of an image


class Contestant(NamedTuple):
    """`main()` trains as the command `words` (for `sys.argv`, without --resume and OUTPUT_DIR) says."""

    name: str
    main: Callable[[], None]
    words: list[str]

    def command(self, output: Path, resume: bool) -> list[str]:
        """For a run in the folder `output`."""
        script, *rest = self.words
        return [script, *["--resume"] * resume, *rest, "OUTPUT_DIR", str(output)]


def write_data(root: Path) -> None:
    """A toy set of 24 + 12 images, which runs of this process and its children find from now on."""
    make_toy_dataset(root / "toy", num_train=24, num_val=12, image_size=_PIXELS, seed=0, num_workers=1)
    os.environ["DETECTRON2_DATASETS"] = str(root)


def ours(train_net: Path, config_file: Path, iterations: int) -> Contestant:
    """The command of the tool `train_net`."""
    words = [str(train_net), "--config-file", str(config_file), *_options(iterations)]
    return Contestant("ours", lambda: runpy.run_path(str(train_net), run_name="__main__"), words)


def stock(config_file: Path, iterations: int) -> Contestant:
    """The host's trainer on the same config; what of it is ours has no meaning to it."""
    return Contestant(
        "stock", train_stock, ["stock", "--config-file", str(config_file), *_options(iterations)]
    )


def _options(iterations: int) -> list[str]:
    """Two images a step, six checkpoints, three evaluations; small enough for some seconds on a CPU."""
    values = {
        "SOLVER.IMS_PER_BATCH": 2,
        "RETHINK.SCHEDULE": f"{2 * iterations} images",
        "RETHINK.REFERENCE_WARMUP_ITERS": 0,
        "SOLVER.CHECKPOINT_PERIOD": max(iterations // 6, 1),
        "TEST.EVAL_PERIOD": max(iterations // 3, 1),
        "RETHINK.WATCH.LOG_PERIOD": 1,
        "RETHINK.WATCH.BEST_METRIC": "bbox/AP",
        "RETHINK.KEEP_CHECKPOINTS": 3,
        "SEED": 7,
        "MODEL.DEVICE": "cpu",
        "DATALOADER.NUM_WORKERS": 0,
        "INPUT.MIN_SIZE_TRAIN": f"({_PIXELS},)",
        "INPUT.MAX_SIZE_TRAIN": _PIXELS,
        "INPUT.MIN_SIZE_TEST": _PIXELS,
        "INPUT.MAX_SIZE_TEST": _PIXELS,
    }
    return [str(word) for pair in values.items() for word in pair]


class StockTrainer(DefaultTrainer):
    """The host's trainer; it asks its subclasses for an evaluator."""

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> COCOEvaluator:
        """The host's, without the compiled part that its installation may lack."""
        folder = os.path.join(cfg.OUTPUT_DIR, "inference")
        return COCOEvaluator(dataset_name, ("bbox", "segm"), False, output_dir=folder, use_fast_impl=False)


def train_stock(argv: list[str] | None = None) -> Any:
    """As in the host's own tools/train_net.py, on the data and the model of a config of ours."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("opts", nargs=argparse.REMAINDER)
    args = parser.parse_args(sys.argv[1:] if argv is None else argv)
    args.eval_only = False
    cfg = load_config(args.config_file, [], args.opts)
    register_toy()
    default_setup(cfg, args)
    # Sums of a CPU are the same in every run anyway; this forbids what is not.
    torch.backends.cudnn.benchmark = False
    trainer = StockTrainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()
