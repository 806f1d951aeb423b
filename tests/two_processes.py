"""Two processes of one gloo group on the CPU, for tests of what has to agree between them."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm


def run_on_two_ranks(work: Callable[[int], Any], folder: Path) -> list[Any]:
    """What `work(rank)` returns in each. Rank 0 is this process: starting one more takes seconds.

    `work` is a function of a module, its result something that `torch.save` takes; `folder` is an empty one.
    """
    other = torch.multiprocessing.get_context("spawn").Process(target=_run_rank, args=(work, 1, str(folder)))
    other.start()
    try:
        first = _run_rank(work, 0, str(folder))
    finally:
        other.join(60)
        other.kill()
    return [first, torch.load(folder / "rank1.pt")]


def _run_rank(work: Callable[[int], Any], rank: int, folder: str) -> Any:
    comm._get_global_gloo_group.cache_clear()  # the host keeps the first group of a process for ever
    dist.init_process_group(
        "gloo", f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    try:
        result = work(rank)
        torch.save(result, f"{folder}/rank{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()
    return result
