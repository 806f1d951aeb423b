#!/usr/bin/env python
"""From nothing to a trained detector: toy data, Mask R-CNN from random weights, AP, pictures. `make demo`."""

import argparse
import os
import shutil
import sys
from pathlib import Path

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "toy" / "scratch_mask_rcnn_R_18_FPN_gn.yaml"


def parse_args() -> argparse.Namespace:
    """Where to, and config keys to override."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", default="output/demo", metavar="DIR", help="folder of the run")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override config keys")
    return parser.parse_args()


def make_data() -> Path:
    """The toy set that configs/toy trains on; made once."""
    from rethink_pretrain.data import datasets_root
    from rethink_pretrain.data.datasets.toy import make_toy_dataset

    root = datasets_root() / "toy"
    print(f"[1/4] Toy set in {root}", flush=True)
    summary = make_toy_dataset(root, num_train=3000, num_val=250, image_size=128, seed=0)
    print(f"      {summary['images']} images, {summary['objects']} objects", flush=True)
    return root


def is_demo(output: Path) -> bool:
    """Whether `output` is what an earlier demo left."""
    from rethink_pretrain.engine.run_record import read_run_record

    sessions = read_run_record(output / "run.json")["sessions"]
    return bool(sessions) and sessions[0]["command"][0] == Path(__file__).name


def run(output: Path, opts: list[str]) -> dict[str, dict[str, float]]:
    """Train and evaluate; an interrupted demo goes on where it was. Returns the metrics of the end."""
    from rethink_pretrain.config import load_config
    from rethink_pretrain.engine import prepare, start, train

    if is_demo(output) and (output / "summary.json").exists():
        shutil.rmtree(output)
    resume = is_demo(output)  # an unfinished one: from its last checkpoint, or again where there is none yet
    cfg = load_config(CONFIG, opts=["OUTPUT_DIR", str(output), *opts])
    prepare(cfg, str(CONFIG), resume=resume)
    print(f"[2/4] Mask R-CNN from random weights, {cfg.SOLVER.MAX_ITER} iterations", flush=True)
    start(
        cfg,
        argparse.Namespace(config_file=str(CONFIG), eval_only=False, resume=resume, opts=opts),
        brief=True,
    )
    return train(cfg, resume)


def draw(output: Path, data: Path) -> None:
    """curve.png and predictions.png, from the files of the run alone."""
    from rethink_pretrain.analysis.plots import plot_curve, plot_predictions
    from rethink_pretrain.analysis.runs import read_metrics

    print("[3/4] Pictures", flush=True)
    plot_curve(
        read_metrics(output / "metrics.json"), output / "curve.png", "Mask R-CNN from random weights, toy set"
    )
    results = output / "inference" / "coco_instances_results.json"
    plot_predictions(data / "val.json", results, data / "val", output / "predictions.png")


def summarize(output: Path, metrics: dict[str, dict[str, float]]) -> dict:
    """summary.json: what came out and what it cost, over all sessions of the run."""
    from rethink_pretrain.engine.run_record import read_run_record
    from rethink_pretrain.files import write_json

    sessions = read_run_record(output / "run.json")["sessions"]
    summary = {
        "box_ap": round(metrics["bbox"]["AP"], 2),
        "mask_ap": round(metrics["segm"]["AP"], 2),
        "train_seconds": round(sum(session.get("train_seconds", 0) for session in sessions), 1),
        "peak_rss_mb": max(session.get("peak_rss_mb", 0) for session in sessions),
        "iterations": sessions[-1]["end_iter"],
        "versions": sessions[-1]["versions"],
    }
    write_json(output / "summary.json", summary)
    return summary


def report(output: Path, summary: dict) -> None:
    """Where everything is, and what to try next."""
    print(f"[4/4] Done: box AP {summary['box_ap']}, mask AP {summary['mask_ap']} ", end="")
    print(f"after {summary['iterations']} iterations in {summary['train_seconds'] / 60:.1f} min.\n")
    for name, content in (
        ("curve.png", "AP and loss against iterations"),
        ("predictions.png", "ground truth beside predictions"),
        ("summary.json", "the numbers"),
        ("metrics.json", "every logged value"),
        ("run.json", "versions, seed, hardware, cost"),
    ):
        print(f"  {output / name!s:32} {content}")
    config = os.path.relpath(CONFIG)
    print("\nNext:")
    print(f"  python tools/train_net.py --config-file {config} OUTPUT_DIR output/mine   # your own run")
    print(
        "  python tools/train_net.py --config-file configs/scratch_6x.yaml --dry-run   # the paper's recipe"
    )


def main() -> None:
    """Data, training, pictures, numbers."""
    args = parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # see train_net.py
    from rethink_pretrain.errors import one_line_errors

    output = Path(args.output)
    with one_line_errors():
        data = make_data()
        metrics = run(output, args.opts)
        draw(output, data)
        report(output, summarize(output, metrics))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from the last checkpoint.", file=sys.stderr)
        raise SystemExit(130) from None
