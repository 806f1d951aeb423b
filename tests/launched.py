"""A stand-in for tools/train_net.py that starts in a second: what to do, then --num-gpus and the like."""

import argparse
import os
import sys
import time

import torch
import torch.distributed as dist
from detectron2.utils import comm

from rethink_pretrain.engine.launch import launch
from rethink_pretrain.engine.processes import find_processes
from rethink_pretrain.errors import UserError, one_line_errors


def run(what: str) -> None:
    rank, total = comm.get_rank(), comm.get_world_size()
    if what == "sum":
        value = torch.tensor([rank + 1.0])
        if total > 1:
            dist.all_reduce(value)
        say(f"rank {rank} of {total}, local {comm.get_local_rank()}, sum {value.item():g}")
    elif what == "mistake":
        raise UserError("everybody comes to it")
    elif rank == 1 and what == "bug":
        raise ZeroDivisionError("the own error")
    elif rank == 1 and what == "late mistake":
        raise UserError("rank 1 alone")
    elif rank == 1 and what == "killed":
        os.kill(os.getpid(), 9)
    elif what == "wait":
        say("ready")
        time.sleep(120)
    comm.synchronize()


def say(line: str) -> None:
    """In one piece: two processes share the stream."""
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what")
    parser.add_argument("--num-gpus", type=int, default=1)
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0)
    parser.add_argument("--dist-url", default="auto")
    args = parser.parse_args()
    with one_line_errors():
        processes = find_processes(args.num_gpus, args.num_machines)
        machines = (args.num_machines, args.machine_rank, args.dist_url)
        launch(run, (args.what,), processes, "cpu", *machines)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        raise SystemExit(130) from None
