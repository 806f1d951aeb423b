#!/usr/bin/env python
"""Compare runs on one page: tools/compare_runs.py output/sweeps/study --output report.html

RUN is the OUTPUT_DIR of a training with this project or with Detectron2, a folder that holds such folders, or
a metrics.json alone. ARM=RUN says what the run started from, where its config.yaml does not. Runs that differ
in more than their start, their length and their seed are refused.
"""

import argparse
from pathlib import Path

from rethink_pretrain.command_line import tool

AXES = ("images", "iterations", "instances", "pixels", "epochs", "hours", "gpu-hours")


def parse_args() -> argparse.Namespace:
    """Which runs, and by what."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    add = parser.add_argument
    add("runs", nargs="+", metavar="RUN", help="RUN or ARM=RUN; two or more")
    add("--output", required=True, metavar="FILE.html", help="the page, which needs no other file")
    add("--reference", metavar="ARM", help="what the others are compared with (the pre-trained arm)")
    add("--margin", type=_margin, default=0.4, metavar="M", help="gap that does not matter (%(default)s AP)")
    add("--metric", default="bbox/AP", metavar="M", help="such as segm/AP (%(default)s)")
    add("--against", choices=AXES, help="horizontal axis of the charts (images)")
    add("--annotations", metavar="J", help="COCO json of the test set, for intervals with one seed")
    add("--figures", metavar="DIR", help="figures as PNG and SVG, curves and tables as CSV")
    add("--json", metavar="FILE", help="the comparison as data")
    add("--force", action="store_true", help="compare runs of different recipes, with a warning")
    return parser.parse_args()


def _margin(word: str) -> float:
    value = float(word)
    if not value >= 0:
        raise argparse.ArgumentTypeError("has to be 0 or more percent points")
    return value


def find_annotations(run) -> Path | None:
    """The json of the run's one registered test set, if it is on this disk."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from rethink_pretrain.data import register_named
    from rethink_pretrain.errors import UserError

    names = run.config.get("DATASETS.TEST", ())
    try:
        register_named(names)
    except UserError:
        return None
    path = run.config.get("RETHINK.DATA.VAL_JSON")
    if not path and len(names) == 1 and names[0] in DatasetCatalog.list():
        path = MetadataCatalog.get(names[0]).get("json_file")
    return Path(path) if path and Path(path).is_file() else None


def compare(args: argparse.Namespace, runs: list, left_out: list):
    """The comparison of the runs; single runs by a bootstrap over images, where their results are there."""
    from rethink_pretrain.analysis.comparison import compare_arms, shared_confidence
    from rethink_pretrain.analysis.image_gaps import ImageGaps
    from rethink_pretrain.analysis.runs import UNKNOWN
    from rethink_pretrain.progress import progress

    others = len({run.arm for run in runs} - {UNKNOWN}) - 1
    given = args.annotations and Path(args.annotations)
    with progress("Bootstrap over images") as task:
        gaps = ImageGaps(
            lambda run: given or find_annotations(run),
            args.metric,
            shared_confidence(0.95, others),
            task.advance,
        )
        options = {"reference": args.reference, "margin": args.margin, "bootstrap": gaps}
        comparison = compare_arms(runs, args.metric, **options)
    left_out += gaps.left_out
    return comparison


@tool()
def main() -> None:
    """Gather, check, compare, write, say what came out and where it is."""
    args = parse_args()
    from rethink_pretrain.analysis import export, report
    from rethink_pretrain.analysis.comparable import check_comparable
    from rethink_pretrain.analysis.gather import gather
    from rethink_pretrain.analysis.page import Section, write_page
    from rethink_pretrain.files import write_json

    runs, left_out = gather(args.runs, args.metric)
    report.check_measured(runs, args.metric)
    if not args.force:
        check_comparable(runs)
    comparison = compare(args, runs, left_out)
    sections = report.report(runs, comparison, args.against, left_out)
    write_page(args.output, report.title(comparison), sections, subtitle=report.subtitle(runs))
    if args.figures:
        curves = export.curves_table(runs, args.metric, args.against or report.default_axis(runs))
        export.write_files(args.figures, [*sections, Section("curves", [curves])])
    if args.json:
        write_json(Path(args.json), export.as_data(comparison))
    print(report.as_text(comparison))
    print(args.output)


if __name__ == "__main__":
    main()
