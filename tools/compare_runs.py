#!/usr/bin/env python
"""Compare runs on one page: tools/compare_runs.py output/scratch_6x output/finetune_6x --output report.html

A run is the OUTPUT_DIR of a training with this project or with Detectron2: metrics.json, config.yaml and,
where there is one, run.json. Runs that differ in more than their initialisation and length are refused.
"""

import argparse
import sys

AXES = ("images", "iterations", "epochs", "hours")


def parse_args() -> argparse.Namespace:
    """Which runs, and by what."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run; two or more")
    parser.add_argument(
        "--output", required=True, metavar="FILE.html", help="the page, which needs no other file"
    )
    parser.add_argument("--metric", default="bbox/AP", metavar="M", help="such as segm/AP (%(default)s)")
    parser.add_argument("--against", choices=AXES, help="horizontal axis of the charts (images)")
    parser.add_argument(
        "--force", action="store_true", help="compare runs of different recipes, with a warning"
    )
    return parser.parse_args()


def main() -> None:
    """Read, check, write, say where it is."""
    args = parse_args()
    from rethink_pretrain.analysis.comparable import check_comparable
    from rethink_pretrain.analysis.page import write_page
    from rethink_pretrain.analysis.report import compare, summary
    from rethink_pretrain.analysis.runs import read_runs
    from rethink_pretrain.errors import one_line_errors

    with one_line_errors():
        runs = read_runs(args.runs)
        if not args.force:
            check_comparable(runs)
        sections = compare(runs, args.metric, args.against)
        what = " and ".join(run.name for run in runs) if len(runs) == 2 else f"{len(runs)} runs"
        write_page(args.output, f"Comparison of {what}", sections)
        print(summary(runs, args.metric))
        print(args.output)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        raise SystemExit(130) from None
