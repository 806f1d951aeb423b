#!/usr/bin/env python
"""The project's question in small: the same detector from random weights and pre-trained. `make demo`.

Draws toy data, pre-trains a backbone on pictures of single objects, trains Mask R-CNN from random weights and
from that backbone for the same iterations, and compares them on a page.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rethink_pretrain.command_line import tool

TOOLS = Path(__file__).resolve().parent
CONFIGS = TOOLS.parent / "configs" / "toy"
PRETRAINING = CONFIGS / "pretrain_R_18_gn.yaml"
ARMS = {
    "scratch": CONFIGS / "scratch_mask_rcnn_R_18_FPN_gn.yaml",
    "finetune": CONFIGS / "finetune_mask_rcnn_R_18_FPN_gn.yaml",
}
MARK = "demo.json"  # there from the beginning: a folder of ours, which may be deleted
SUMMARY = "summary.json"  # there at the end


def parse_args() -> argparse.Namespace:
    """Where to, and config keys to override."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    parser.add_argument("--output", default="output/demo", metavar="DIR", help="folder of the runs")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override config keys of the detectors"
    )
    return parser.parse_args()


def make_data() -> Path:
    """The toy sets that configs/toy trains on, made once; their folder."""
    from rethink_pretrain.data import datasets_root
    from rethink_pretrain.data.datasets.toy import make_toy_dataset
    from rethink_pretrain.data.datasets.toy_classes import make_toy_classification

    root = datasets_root()
    print(f"[1/5] Toy sets in {root}", flush=True)
    detection = make_toy_dataset(root / "toy", num_train=3000, num_val=250, image_size=128, seed=0)
    pictures = make_toy_classification(
        root / "toy_classes", num_train=3200, num_val=400, image_size=64, seed=0
    )
    print(f"      {detection['images']} images, {detection['objects']} objects; ", end="")
    print(f"{pictures['images']} pictures of single objects", flush=True)
    return root


def open_folder(output: Path) -> None:
    """A new folder, or that of an earlier demo: of a finished one emptied. Another's is a `UserError`."""
    from rethink_pretrain.errors import UserError
    from rethink_pretrain.files import write_json

    if output.is_dir() and any(output.iterdir()) and not (output / MARK).is_file():
        raise UserError(f"{output} holds something else than a demo. Choose another --output.")
    if (output / SUMMARY).is_file():
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / MARK, {"made by": "make demo"})


def train(output: Path, opts: list[str], pretraining_opts: list[str]) -> None:
    """Pre-training, then both arms at the same time; what is done already stays."""
    from rethink_pretrain.engine.jobs import Job, run_jobs

    def job(name: str, tool: str, config: Path, opts: list[str]) -> Job:
        words = ["--config-file", os.path.relpath(config), *opts, "OUTPUT_DIR", str(output / name)]
        return Job(name, [str(TOOLS / tool), *words], output / name)

    print("[2/5] Pre-training: the backbone learns to classify single objects", flush=True)
    run_jobs([job("pretraining", "pretrain_backbone.py", PRETRAINING, pretraining_opts)])
    print("[3/5] Mask R-CNN, from random weights and from that backbone", flush=True)
    weights = ["MODEL.WEIGHTS", str(output / "pretraining" / "backbone.pth")]
    arms = {"scratch": opts, "finetune": [*opts, *weights]}
    run_jobs([job(arm, "train_net.py", ARMS[arm], words) for arm, words in arms.items()], at_once=2)


def draw(output: Path, data: Path) -> None:
    """curve.png and predictions.png of the run from random weights, and report.html of both."""
    from rethink_pretrain.analysis.plots import plot_curve, plot_predictions
    from rethink_pretrain.analysis.runs import read_metrics

    print("[4/5] Pictures and comparison", flush=True)
    run = output / "scratch"
    plot_curve(
        read_metrics(run / "metrics.json"), output / "curve.png", "Mask R-CNN from random weights, toy set"
    )
    results = run / "inference" / "coco_instances_results.json"
    plot_predictions(data / "toy/val.json", results, data / "toy/val", output / "predictions.png")
    compare = [str(TOOLS / "compare_runs.py"), *(str(output / arm) for arm in ARMS)]
    files = ["--output", str(output / "report.html"), "--annotations", str(data / "toy/val.json")]
    subprocess.run([sys.executable, *compare, *files], check=True)


def summarize(output: Path, seconds: float) -> dict:
    """summary.json: what came out of each arm, what it cost, and how long this demo took."""
    from rethink_pretrain.analysis.runs import read_run
    from rethink_pretrain.files import write_json

    summary = {"seconds": round(seconds, 1)}
    for name in ("pretraining", *ARMS):
        run = read_run(output / name)
        last = run.sessions[-1]
        metrics = {key: value for row in run.rows for key, value in row.items()}  # the last of each
        summary[name] = {
            **{
                word: round(metrics[key], 2)
                for word, key in (
                    *(("box_ap", "bbox/AP"), ("mask_ap", "segm/AP")),
                    ("top1", "classification/top1"),
                )
                if key in metrics
            },
            "train_seconds": round(sum(session.get("train_seconds", 0) for session in run.sessions), 1),
            "peak_rss_mb": max(session.get("peak_rss_mb", 0) for session in run.sessions),
            "iterations": last["end_iter"],
            "samples": last["samples"],
        }
    summary["versions"] = last["versions"]
    write_json(output / SUMMARY, summary)
    return summary


def report(output: Path, summary: dict) -> None:
    """Where everything is, and what to try next."""
    scratch, finetune = (summary[arm] for arm in ARMS)
    print(
        f"[5/5] Done in {summary['seconds'] / 60:.1f} min. After {scratch['iterations']} iterations, ", end=""
    )
    print(f"box AP {scratch['box_ap']} from random weights, {finetune['box_ap']} pre-trained.\n")
    for name, content in (
        ("report.html", "both runs compared: open it in a browser"),
        ("curve.png", "AP and loss from random weights"),
        ("predictions.png", "ground truth beside predictions"),
        ("summary.json", "the numbers"),
        ("scratch/, finetune/", "the runs: metrics.json, run.json, checkpoints"),
    ):
        print(f"  {output / name!s:32} {content}")
    config = os.path.relpath(ARMS["scratch"])
    print("\nNext:")
    print(f"  python tools/train_net.py --config-file {config} OUTPUT_DIR output/mine   # your own run")
    print(
        "  python tools/train_net.py --config-file configs/scratch_6x.yaml --dry-run   # the paper's recipe"
    )


@tool("Stopped. The same command goes on from the last checkpoint.")
def main() -> None:
    """Data, training, pictures, numbers."""
    args = parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # see train_net.py
    output, start = Path(args.output), time.perf_counter()
    open_folder(output)
    data = make_data()
    train(output, args.opts, [])
    draw(output, data)
    report(output, summarize(output, time.perf_counter() - start))


if __name__ == "__main__":
    main()
