"""From a loaded config to a run that may start: folder, data, device, seed, log."""

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..config import resolve_anew, scale_to
from ..data import (
    apply_image_folders,
    apply_own_data,
    check_datasets,
    check_num_classes,
    micro_batch_size,
    register_named,
)
from ..errors import UserError
from ..evaluation import import_hotcoco
from ..files import write_atomically, write_text
from .changes import find_changes, refuse_another_batch
from .precision import settle_precision
from .processes import ONE_PROCESS, Processes, is_restart, job_id
from .run_record import read_run_record

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.yaml"  # the host's name
_HOST_OUTPUT_DIR = "./output"


def prepare(
    cfg: CfgNode,
    config_file: str,
    processes: Processes = ONE_PROCESS,
    *,
    resume: bool = False,
    eval_only: bool = False,
) -> bool:
    """`complete` the config and refuse what cannot run; whether the run is to be resumed.

    A job that its launcher starts again is resumed without being asked to. Raises `UserError` for missing
    data, a folder that holds another run or cannot be written, an evaluation without weights, a batch that
    does not divide by the processes or is not that of the run to resume, more processes than GPUs, and a
    missing hotcoco.
    """
    complete(cfg, config_file, processes)
    check_datasets(cfg.DATASETS.TEST if eval_only else (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST))
    _check_processes(cfg, processes)
    if cfg.RETHINK.SPEED.COCO_EVAL == "hotcoco":
        import_hotcoco()  # now, and not at the first evaluation
    if eval_only and not (resume or cfg.MODEL.WEIGHTS):
        raise UserError(
            "--eval-only needs weights: give MODEL.WEIGHTS FILE, or --resume for the last checkpoint."
        )
    output = Path(cfg.OUTPUT_DIR)
    if not eval_only and not resume:
        resume = is_restart() or _same_job(output)
    if not eval_only:
        _check_output_dir(output, resume)
        if resume:
            refuse_another_batch(cfg)
    return resume


def complete(cfg: CfgNode, config_file: str, processes: Processes = ONE_PROCESS) -> None:
    """Fill what depends on the processes, the device, the user's own data and the config file's name.

    OUTPUT_DIR, where it is the host's default, becomes `output/<name of the config file>`, because two runs
    in one folder overwrite each other. Of data, it reads the json files of RETHINK.DATA alone.
    """
    if cfg.OUTPUT_DIR == _HOST_OUTPUT_DIR:
        cfg.OUTPUT_DIR = f"output/{Path(config_file).stem}"
    scale_to(cfg, processes.total)
    register_datasets(cfg)
    device = _device(cfg.MODEL.DEVICE)
    if not device.startswith("cuda") or torch.cuda.is_available():  # else "auto" stays: it cannot run here
        settle_precision(cfg, device, goes_on=bool(_traces_of_run(Path(cfg.OUTPUT_DIR))))


def _same_job(output: Path) -> bool:
    """Whether the run in the folder belongs to the job of this process; torchrun restarts after a change of
    machines without saying so.
    """
    job = job_id()
    return bool(job) and any(s.get("job") == job for s in read_run_record(output / "run.json")["sessions"])


def register_datasets(cfg: CfgNode) -> None:
    """Register those of our data sets that `cfg` names. Every process of a run has to call it.

    The user's own data of `cfg.RETHINK.DATA`, or a classifier's folders, become DATASETS.TRAIN and TEST; a
    SCHEDULE in epochs is then of them.
    """
    epoch = cfg.RETHINK.IMAGES_PER_EPOCH
    apply_own_data(cfg)
    apply_image_folders(cfg)
    if cfg.RETHINK.SCHEDULE and epoch != cfg.RETHINK.IMAGES_PER_EPOCH:
        resolve_anew(cfg)
    register_named({*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST})


def check_categories(cfg: CfgNode, names: Iterable[str]) -> None:
    """Raises `UserError` where a loaded data set has another number of classes than a head of the model."""
    arch = cfg.MODEL.META_ARCHITECTURE
    heads = {
        "RETINANET": "RetinaNet" in arch,
        "SEM_SEG_HEAD": arch in ("SemanticSegmentor", "PanopticFPN"),
        "ROI_HEADS": arch in ("GeneralizedRCNN", "PanopticFPN"),
    }
    for node in (node for node, used in heads.items() if used):
        check_num_classes(names, cfg.MODEL[node].NUM_CLASSES, key=f"MODEL.{node}")


def start(cfg: CfgNode, args: argparse.Namespace, *, brief: bool = False) -> None:
    """The host's `default_setup` (log, `config.yaml`, seeds), with our log beside it and a shared seed.

    `brief` leaves progress, evaluation and warnings on the screen; log.txt holds everything either way.
    """
    cfg.defrost()
    if cfg.SEED < 0:
        cfg.SEED = _seed_of(Path(cfg.OUTPUT_DIR)) if args.resume else -1
    if cfg.SEED < 0:
        cfg.SEED = comm.shared_random_seed() % 2**31  # so that run.json can name it
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="rethink_pretrain")
    if brief:
        _limit_console(cfg.OUTPUT_DIR)
    with _kept(Path(cfg.OUTPUT_DIR, CONFIG_FILE)) if args.resume else contextlib.nullcontext():
        try:
            default_setup(_to_keep(cfg), args)
        except OSError as error:
            raise _unwritable(cfg.OUTPUT_DIR, error.strerror or str(error)) from None
    _forgive_full_disks()
    if args.resume and comm.is_main_process():
        for change in find_changes(cfg):
            logger.warning("The run goes on with another config than it was started with: %s.", change)
    cfg.freeze()


def write_config(cfg: CfgNode) -> None:
    """OUTPUT_DIR/config.yaml, once it is sure that training starts: a resume may still be refused."""
    try:
        write_text(Path(cfg.OUTPUT_DIR, CONFIG_FILE), _to_keep(cfg).dump())
    except OSError as error:
        logger.error("%s cannot be written: %s.", CONFIG_FILE, error.strerror)


def _to_keep(cfg: CfgNode) -> CfgNode:
    """Trust is given on the command line each time; a file that claims it is refused."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.RETHINK.TRUST_PICKLE = False
    return cfg


@contextlib.contextmanager
def _kept(path: Path) -> Iterator[None]:
    """The file is afterwards what it was before."""
    before = path.read_bytes() if comm.is_main_process() and path.is_file() else None
    yield
    if before is not None:
        write_atomically(path, lambda file: file.write(before))


def _forgive_full_disks() -> None:
    """A line of the log that the disk has no room for is lost; Python would print a traceback for each."""
    for name in ("detectron2", "fvcore", "rethink_pretrain"):
        for handler in logging.getLogger(name).handlers:
            handler.handleError = _unless_disk_error(logging.Handler.handleError, handler)


def _unless_disk_error(handle: Callable, handler: logging.Handler) -> Callable[[logging.LogRecord], None]:
    return lambda record: None if isinstance(sys.exc_info()[1], OSError) else handle(handler, record)


def _seed_of(output: Path) -> int:
    """What the run in the folder was started with, -1 where it does not say."""
    sessions = read_run_record(output / "run.json")["sessions"]
    return sessions[-1].get("seed", -1) if sessions else -1


def _limit_console(output_dir: str) -> None:
    rank = comm.get_rank()
    # These are the calls of default_setup, whose results the host caches: it will find the same handlers.
    loggers = (
        setup_logger(output_dir, distributed_rank=rank, name="fvcore"),
        setup_logger(output_dir, distributed_rank=rank),
    )
    for handler in (handler for logger in loggers for handler in logger.handlers):
        if handler.stream is sys.stdout:
            handler.addFilter(lambda r: r.levelno >= logging.WARNING or r.name.endswith("utils.events"))


def pick_device(device: str) -> str:
    """`device` itself, or for "auto" the GPU where there is one and else the CPU, which the log says."""
    found = _device(device)
    if device == "auto" and found == "cpu":
        logger.warning("No GPU is visible: running on the CPU.")
    return found


def _device(name: str) -> str:
    if name != "auto":
        try:
            torch.device(name)
        except RuntimeError:
            raise UserError(f"MODEL.DEVICE {name!r} is none: choose auto, cpu, cuda or cuda:N.") from None
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"


def _check_processes(cfg: CfgNode, processes: Processes) -> None:
    visible = torch.cuda.device_count()
    if cfg.MODEL.DEVICE == "cuda" and visible == 0:
        raise UserError("MODEL.DEVICE is cuda, but no GPU is visible. Set it to auto or cpu.")
    # Who starts processes from outside may mean the CPU, or may show each of them its own GPU alone.
    placed = cfg.MODEL.DEVICE == "cpu" or (processes.started_by and visible < 2)
    if not placed and processes.per_machine > max(visible, 1):
        raise UserError(
            f"{processes.per_machine} processes per machine, but {visible or 'no'} GPUs visible here. Start "
            "as many as there are (--num-gpus), or set MODEL.DEVICE cpu for so many on the CPU."
        )
    if cfg.SOLVER.IMS_PER_BATCH % processes.total:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} does not divide by {processes.total} "
            f"processes. Set it to a multiple of {processes.total}, or set RETHINK.IMAGES_PER_GPU; the "
            "learning rate and schedule follow."
        )
    micro_batch_size(cfg, processes.total)


def _check_output_dir(output: Path, resume: bool) -> None:
    folder = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise _unwritable(output, f"{str(folder)!r} is no folder to write into")
    traces = _traces_of_run(output)
    if traces and not resume:
        raise UserError(
            f"{str(output)!r} already holds a run ({', '.join(traces)}). Continue it with --resume, "
            "or choose another folder with OUTPUT_DIR."
        )


def _traces_of_run(output: Path) -> list[str]:
    """Names of the files that say that training has begun there."""
    files = [*(output / name for name in ("last_checkpoint", "metrics.json")), *output.glob("model_*.pth")]
    return [file.name for file in files if file.exists() and file.stat().st_size > 0]


def _unwritable(output: str | Path, reason: str) -> UserError:
    return UserError(f"Cannot write into {str(output)!r}: {reason}. Choose another folder with OUTPUT_DIR.")
