#!/usr/bin/env python
"""Hours of a run on more GPUs, on paper: tools/simulate_scaling.py --config-file C --preset v100-detectron2

Needs the time of an image on one GPU: measure it ("time" in metrics.json of a short run, divided by the
images per iteration) and give it as --seconds-per-image, or take a published one by --preset. Bandwidths,
latencies and the like are assumptions: --list prints them with their sources, --assume changes one.
Prints Markdown tables.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from rethink_pretrain.command_line import tool

ROOT = Path(__file__).resolve().parents[1]
PRESETS = {"v100-detectron2": "8 V100", "p100-detectron": "8 P100"}  # name -> hardware in results/paper.json
PRESET_GPUS = 8


def parse_args() -> argparse.Namespace:
    """The run, the machine, and what to write."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    add = parser.add_argument
    add("--config-file", metavar="FILE", help="a file of configs/")
    add(
        "--overlay",
        action="append",
        default=[],
        metavar="NAME",
        help="merge configs/_overlay/NAME.yaml on top",
    )
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument(
        "--seconds-per-image", type=positive, metavar="S", help="forward and backward, one GPU"
    )
    speed.add_argument("--preset", choices=PRESETS, help="from published seconds per iteration on 8 GPUs")
    add("--fixed-seconds", type=not_negative, default=0.0, metavar="S", help="of a step, whatever its images")
    add("--gpus", type=whole, nargs="+", default=[1, 8, 64, 512], metavar="N", help="(1 8 64 512)")
    add("--gpus-per-node", type=whole, default=8, metavar="N", help="(8)")
    add("--images-per-gpu", type=whole, default=2, metavar="N", help="(2)")
    add("--parameters", type=whole, metavar="N", help="that train; without it the model is built and counted")
    add("--synced-norms", type=whole, metavar="N", help="SyncBN layers; counted, or 0 with --parameters")
    add("--half-gradients", action="store_true", help="gradients travel in 2 bytes instead of 4")
    add("--eval-every", type=whole, default=5000, metavar="N", help="iterations of 16 images (5000)")
    add("--checkpoint-every", type=whole, default=5000, metavar="N", help="iterations of 16 images (5000)")
    add("--price-per-gpu-hour", type=positive, metavar="P", help="adds a column of costs, in P's currency")
    add("--figure", metavar="PNG", help="draw the table")
    add("--json", metavar="OUT", help="write all numbers")
    assume_help = "such as inter_gb_s=50; several times"
    add("--assume", type=assumption, action="append", default=[], metavar="NAME=VALUE", help=assume_help)
    add("--list", action="store_true", help="print what is assumed, and why, and exit")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override config keys")
    args = parser.parse_args()
    if not args.list and not (args.config_file and (args.preset or args.seconds_per_image)):
        parser.error("give --config-file, and --preset or --seconds-per-image")
    return args


def assumption(text: str) -> tuple[str, float]:
    """Name and value."""
    name, _, value = text.partition("=")
    return name, not_negative(value)


def not_negative(text: str) -> float:
    """A finite number from 0."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not 0 or more")
    return value


def positive(text: str) -> float:
    """A finite number above 0."""
    value = not_negative(text)
    if not value:
        raise argparse.ArgumentTypeError("it must be above 0")
    return value


def whole(text: str) -> int:
    """A whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def read_job(args: argparse.Namespace):
    """The run of the config; its seconds per image are those given, or 1 for `calibrate` to replace."""
    from rethink_pretrain.analysis.scaling import Job
    from rethink_pretrain.config import load_config
    from rethink_pretrain.solver.schedule import REFERENCE_BATCH

    cfg = load_config(args.config_file, args.overlay, args.opts)
    total, trainable, synced = args.parameters, args.parameters, args.synced_norms or 0
    if args.parameters is None:
        from rethink_pretrain.engine.describe_model import describe_model

        model = describe_model(cfg)
        total, trainable = model.total, model.trainable
        synced = args.synced_norms or model.norms.get("SyncBN", 0)
    return Job(
        images=cfg.SOLVER.MAX_ITER * cfg.SOLVER.IMS_PER_BATCH,
        images_per_gpu=args.images_per_gpu,
        seconds_per_image=args.seconds_per_image or 1.0,
        parameters=total,
        trainable=trainable,
        fixed_seconds=args.fixed_seconds,
        gradient_bytes=2 if args.half_gradients else 4,
        synced_norms=synced,
        eval_every=args.eval_every * REFERENCE_BATCH,
        checkpoint_every=args.checkpoint_every * REFERENCE_BATCH,
    )


def calibrate(job, args: argparse.Namespace, machine):
    """`job` with the preset's seconds per image, and a line about them."""
    from rethink_pretrain.analysis.paper import read_paper
    from rethink_pretrain.analysis.scaling import compute_seconds
    from rethink_pretrain.errors import UserError

    path, configs = Path(args.config_file).resolve(), ROOT / "configs"
    name = path.relative_to(configs).as_posix() if path.is_relative_to(configs) else path.name
    row = read_paper(ROOT / "results" / "paper.json").seconds_of(name, PRESETS[args.preset])
    if row is None:
        raise UserError(
            f"--preset {args.preset}: nobody published seconds per iteration of {name} on "
            f"{PRESETS[args.preset]}. Measure them and give --seconds-per-image."
        )
    images = row.batch // PRESET_GPUS
    published = job._replace(images_per_gpu=images, gradient_bytes=4)
    compute = compute_seconds(row.seconds, published, PRESET_GPUS, PRESET_GPUS, machine)
    seconds = (compute - args.fixed_seconds) / images
    if seconds <= 0:
        raise UserError(
            f"--fixed-seconds {args.fixed_seconds} leaves no time for images: a step is {compute:.3f} s."
        )
    line = (
        f"{row.source}, {row.hardware}, {row.row}: {row.seconds} s per iteration of {row.batch} images. "
        f"Without communication {seconds:.4f} s per image: at {PRESET_GPUS} GPUs with {images} images each "
        "the table repeats this number and predicts nothing."
    )
    return job._replace(seconds_per_image=seconds), line


def tables(predictions: list, price: float | None) -> str:
    """What a run takes, and what its time goes into, in Markdown."""
    cost = ["cost"] if price else []
    head = ["GPUs", "nodes", "batch", "s/iteration", "images/s", "hours", "GPU-hours", *cost, "breaks first"]
    rows = []
    for p in predictions:
        seconds = p.seconds_per_iteration
        cells = [p.gpus, p.nodes, p.batch, f"{seconds:.3f}", f"{p.batch / seconds:.1f}"]
        cells += [f"{p.hours:.3g}" if p.hours < 100 else f"{p.hours:.0f}", f"{p.gpu_hours:.0f}"]
        rows.append([*cells, *([f"{p.gpu_hours * price:.0f}"] if price else []), p.breaks_first()])
    parts = list(predictions[0].run)
    shares = []
    for p in predictions:
        total = sum(p.run.values())
        shares.append([p.gpus, *(f"{p.run[part] / total:.1%}" for part in parts)])
    return f"{markdown(head, rows)}\n\n{markdown(['GPUs', *parts], shares)}"


def markdown(head: list, rows: list[list]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def as_json(job, predictions: list, source: str) -> dict:
    """The run, its predictions, and where its speed comes from."""
    names = ("hours", "gpu_hours", "efficiency", "seconds_per_iteration")
    runs = [
        {**p._asdict(), **{n: getattr(p, n) for n in names}, "breaks_first": p.breaks_first()}
        for p in predictions
    ]
    return {"speed": source, "job": job._asdict(), "predictions": runs}


def list_assumptions(machine) -> str:
    """Every value with its source, in Markdown."""
    from rethink_pretrain.analysis.scaling import SOURCES

    rows = [[f"`{name}`", f"{value:.4g}", SOURCES[name]] for name, value in asdict(machine).items()]
    return markdown(["name", "value", "what, and where it comes from"], rows)


def run(args: argparse.Namespace) -> None:
    """Predict, print, write."""
    from rethink_pretrain.analysis.scaling import build_machine, predict

    machine = build_machine(dict(args.assume))
    if args.list:
        print(list_assumptions(machine))
        return
    check_outputs([args.json, args.figure])
    job, source = read_job(args), f"{args.seconds_per_image} s per image on one GPU, as given."
    if args.preset:
        job, source = calibrate(job, args, machine)
    predictions = [predict(job, gpus, args.gpus_per_node, machine) for gpus in sorted(set(args.gpus))]
    print(f"Speed: {source}", tables(predictions, args.price_per_gpu_hour), sep="\n\n")
    write(args, machine, job, predictions, source)


def check_outputs(paths: list[str | None]) -> None:
    """Before the work, not after it."""
    from rethink_pretrain.errors import UserError

    for path in filter(None, paths):
        if not Path(path).resolve().parent.is_dir():
            raise UserError(f"The folder {Path(path).parent} does not exist.")


def write(args: argparse.Namespace, machine, job, predictions: list, source: str) -> None:
    """The files asked for."""
    from rethink_pretrain.files import write_json

    if args.json:
        write_json(Path(args.json), {"machine": asdict(machine), **as_json(job, predictions, source)})
    if args.figure:
        from rethink_pretrain.analysis.scaling_plot import plot_scaling

        speed = args.preset or f"{args.seconds_per_image} s per image"
        title = f"{Path(args.config_file).stem}, {args.images_per_gpu} images per GPU, {speed}: predicted"
        plot_scaling(predictions, args.figure, title)


@tool()
def main() -> None:
    """One table or one line of error."""
    args = parse_args()
    run(args)


if __name__ == "__main__":
    main()
