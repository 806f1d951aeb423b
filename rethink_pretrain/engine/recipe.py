"""What a resolved config comes to on a number of processes: a table for people, data for run.json."""

from typing import Any

from detectron2.config import CfgNode
from tabulate import tabulate

from ..data import micro_batch_size


def describe_recipe(cfg: CfgNode, processes: int) -> dict[str, Any]:
    """Batch, learning rate and length of a run; "images" counts every visit, LR is the one after warm-up."""
    solver = cfg.SOLVER
    batch, micro_batch = solver.IMS_PER_BATCH, micro_batch_size(cfg, processes)
    images = solver.MAX_ITER * batch
    return {
        "processes": processes,
        "images_per_step": batch,
        "images_per_process": batch // processes,
        "micro_batches": batch // processes // micro_batch,
        "learning_rate": solver.BASE_LR,
        "warmup_iterations": solver.WARMUP_ITERS,
        "warmup_factor": solver.WARMUP_FACTOR,
        "iterations": solver.MAX_ITER,
        "drops": list(solver.STEPS),
        "drop_factor": solver.GAMMA,
        "images": images,
        "epochs": images / cfg.RETHINK.IMAGES_PER_EPOCH,
        "evaluation_period": cfg.TEST.EVAL_PERIOD,
        "checkpoint_period": solver.CHECKPOINT_PERIOD,
    }


def format_recipe(recipe: dict[str, Any]) -> str:
    """The table that a run shows at its start."""
    share = f"{recipe['processes']} x {recipe['images_per_process']}"
    if recipe["micro_batches"] > 1:
        share += f", in {recipe['micro_batches']} micro-batches each"
    drops = ", ".join(map(str, recipe["drops"])) or "none"
    evaluation = recipe["evaluation_period"]
    rows = [
        ("images per step", f"{recipe['images_per_step']} ({share})"),
        ("learning rate", f"{recipe['learning_rate']:g}, x{recipe['drop_factor']:g} at {drops}"),
        ("warm-up", f"{recipe['warmup_iterations']} iterations from x{recipe['warmup_factor']:.3g}"),
        ("iterations", recipe["iterations"]),
        ("images", f"{recipe['images'] / 1e6:.3g}M, {recipe['epochs']:.1f} epochs"),
        (
            "evaluation",
            f"every {evaluation}" if evaluation else "at the end",
        ),
        ("checkpoint", f"every {recipe['checkpoint_period']}"),
    ]
    return tabulate(rows, tablefmt="plain", disable_numparse=True)
