#!/usr/bin/env python
"""What would go wrong in a run, before it starts: tools/doctor.py --config-file configs/scratch_6x.yaml

Builds the model on the CPU and loads its weights; needs no data. Ends with 0 if nothing grave was found, else
with 1.
"""

import argparse
import logging

from rethink_pretrain.command_line import add_config_flags, add_opts, add_trust_flag, tool


def parse_args() -> argparse.Namespace:
    """The config as in tools/train_net.py."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    add_config_flags(parser)
    parser.add_argument("--no-weights", action="store_true", help="do not load (or download) MODEL.WEIGHTS")
    add_trust_flag(parser)
    parser.add_argument("--num-gpus", type=int, default=1, help="of the run, over all machines")
    add_opts(parser)
    return parser.parse_args()


def run(args: argparse.Namespace) -> bool:
    """Print the table of parts and the findings; whether none is grave."""
    from detectron2.modeling import build_model

    from rethink_pretrain.config import load_config
    from rethink_pretrain.engine.doctor import describe_parts, examine, report

    cfg = load_config(args.config_file, args.overlay, args.opts)
    if args.num_gpus < 1 or cfg.SOLVER.IMS_PER_BATCH % args.num_gpus:
        fail(
            f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} does not divide by --num-gpus {args.num_gpus}."
        )
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg)
    loaded = {} if args.no_weights else load_weights(model, cfg.MODEL.WEIGHTS, args.trust_pickle)
    findings = examine(cfg, model, **loaded, processes=args.num_gpus)
    if cfg.MODEL.WEIGHTS and not loaded:
        print(f"{cfg.MODEL.WEIGHTS} is not loaded (--no-weights).\n")
    print(describe_parts(model, loaded.get("missing")), report(findings), sep="\n\n")
    return not any(finding.severity == "stop" for finding in findings)


def load_weights(model, weights: str, trust_pickle: bool) -> dict:
    """Fill `model`; what `examine` wants to know about the file, {} where there is none."""
    from rethink_pretrain.checkpoint import RethinkCheckpointer

    if not weights:
        return {}
    checkpointer = RethinkCheckpointer(model, trust_pickle=trust_pickle)
    checkpointer.load(weights)
    return {"coverage": checkpointer.coverage, "missing": checkpointer.missing}


def fail(message: str) -> None:
    """As one line."""
    from rethink_pretrain.errors import UserError

    raise UserError(message)


@tool()
def main() -> None:
    """Only the findings, not what the host logs while it loads."""
    args = parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    healthy = run(args)
    raise SystemExit(0 if healthy else 1)


if __name__ == "__main__":
    main()
