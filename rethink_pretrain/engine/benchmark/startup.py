"""What a user waits for: --help, imports, the first iteration. Whole processes, by turns."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode, get_cfg

from ...config import load_config
from ...data.datasets.toy import make_toy_dataset
from .rows import STOCK, limit_row, speed_row, time_by_turns
from .settings import Settings
from .stock import stock_config

# Prints seconds: in one process, because the host's import takes now one second more and now one less.
_IMPORTS = """
import time
start = time.perf_counter()
import detectron2.modeling
between = time.perf_counter()
import rethink_pretrain
print(between - start, time.perf_counter() - between)
"""
# The imports of the host's tools/train_net.py, which its installation leaves out.
_HOST_HELP = """
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultTrainer, default_argument_parser, default_setup, hooks, launch
from detectron2.evaluation import COCOEvaluator
from detectron2.modeling import GeneralizedRCNNWithTTA
default_argument_parser().parse_args(["--help"])
"""
_HOST_STEP = """
import sys
from detectron2.config import get_cfg
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import DefaultTrainer
from detectron2.utils.events import EventStorage
cfg = get_cfg()
cfg.merge_from_file(sys.argv[1])
register_coco_instances("startup_set", {}, sys.argv[2], sys.argv[3])
trainer = DefaultTrainer(cfg)
trainer.resume_or_load(resume=False)
with EventStorage(0) as trainer.storage:
    trainer.iter = 0
    trainer.before_train(); trainer.before_step(); trainer.run_step()
"""
_OUR_STEP = """
import sys
from pathlib import Path
from rethink_pretrain.config import load_config
from rethink_pretrain.data import register_coco
from rethink_pretrain.engine import Trainer
from detectron2.utils.events import EventStorage
register_coco("startup_set", sys.argv[2], sys.argv[3])
cfg = load_config(sys.argv[1], (), sys.argv[4:])
trainer = Trainer(cfg)
trainer.resume_or_load(resume=False)
with EventStorage(0) as trainer.storage:
    trainer.iter = 0
    trainer.before_train(); trainer.before_step(); trainer.run_step()
    trainer.ended = "interrupted"; trainer.after_train()
"""


def measure_startup(settings: Settings) -> list[dict[str, Any]]:
    """Rows of seconds: --help, what our import costs beyond the host's, and the first step of a toy run."""
    return [_measure_help(settings), _measure_import(settings), _measure_first_step(settings)]


def _measure_help(settings: Settings) -> dict[str, Any]:
    train_net = str(settings.root / "tools" / "train_net.py")
    contestants = {"ours": lambda: run_python(train_net, "--help")}
    if settings.stock:
        contestants[STOCK] = lambda: run_python("-c", _HOST_HELP)
    seconds = time_by_turns(contestants, settings.startup_rounds)
    return limit_row("train_net.py --help", "s", seconds, {"ours": 0.3})


def _measure_import(settings: Settings) -> dict[str, Any]:
    pairs = [map(float, run_python("-c", _IMPORTS).split()) for _ in range(1 + settings.startup_rounds)]
    host, ours = zip(*pairs[1:], strict=True)  # the first reads files that the others find in memory
    seconds = {"host alone": host, "ours beyond the host": ours}
    return limit_row("import rethink_pretrain", "s", seconds, {"ours beyond the host": 0.3})


def _measure_first_step(settings: Settings) -> dict[str, Any]:
    data = settings.folder / "startup"
    make_toy_dataset(data, num_train=24, num_val=1, image_size=128, seed=0, num_workers=1)
    config_file, opts = _toy_config(settings)
    files = [str(data / "train.json"), str(data / "train")]
    contestants = {"ours": lambda: run_python("-c", _OUR_STEP, str(config_file), *files, *opts)}
    if settings.stock:
        host = settings.folder / "startup.yaml"
        host.write_text(_host_yaml(load_config(config_file, (), opts)), encoding="utf-8")
        contestants[STOCK] = lambda: run_python("-c", _HOST_STEP, str(host), *files)
    seconds = time_by_turns(contestants, settings.startup_rounds)
    return speed_row("from the command to the end of the first step, toy data", seconds, unit="starts/s")


def _toy_config(settings: Settings) -> tuple[Path, list[str]]:
    """The toy config at the one width of R18 that the host's builder knows; no evaluation."""
    values = {
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 64,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
        "MODEL.DEVICE": "cpu",
        "DATASETS.TRAIN": "('startup_set',)",
        "DATASETS.TEST": "()",
        "TEST.EVAL_PERIOD": 0,
        "SOLVER.IMS_PER_BATCH": 2,
        "RETHINK.SCHEDULE": "2000 images",
        "OUTPUT_DIR": settings.folder / "startup_run",
    }
    config_file = settings.root / "configs" / "toy" / "scratch_mask_rcnn_R_18_FPN_gn.yaml"
    (settings.folder / "startup_run").mkdir(exist_ok=True)
    return config_file, [str(word) for pair in values.items() for word in pair]


def _host_yaml(cfg: CfgNode) -> str:
    """`cfg` without keys and parts of ours."""
    known = yaml.safe_load(get_cfg().dump())
    return yaml.safe_dump(_only_known(yaml.safe_load(stock_config(cfg).dump()), known))


def _only_known(values: dict, known: dict) -> dict:
    return {
        key: _only_known(value, known[key]) if isinstance(known[key], dict) and known[key] else value
        for key, value in values.items()
        if key in known
    }


def run_python(*words: str) -> str:
    """What a process of this Python prints. RuntimeError with the end of what it said where it fails."""
    done = subprocess.run([sys.executable, "-W", "ignore", *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{words[:2]} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout
