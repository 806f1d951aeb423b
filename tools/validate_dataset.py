#!/usr/bin/env python
"""What is wrong with a data set: tools/validate_dataset.py --json train.json --images train/

Looks at every record and decodes every image. Ends with 0 where nothing is wrong that would hurt training
(warnings alone are fine, unless --strict), with 1 where something is, with 2 where a path cannot be
read or written at all. The json stays as it is; --fix writes a repaired copy of it.
"""

import argparse
import logging
import sys
from pathlib import Path

from rethink_pretrain.command_line import tool
from rethink_pretrain.cores import usable_cores

CLEAN, PROBLEMS, UNREADABLE = 0, 1, 2


def parse_args() -> argparse.Namespace:
    """What to look at, and what to write."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    add = parser.add_argument
    add("--json", required=True, type=Path, metavar="J", help="annotations in COCO's format")
    add("--images", required=True, type=Path, metavar="DIR", help="folder of their images")
    add("--fix", type=Path, metavar="OUT", help="write a repaired copy of J, and say what was done")
    add("--report", type=Path, metavar="FILE.json", help="the report for programs")
    add("--no-images", action="store_true", help="look at the json alone")
    add("--workers", type=int, default=usable_cores(), metavar="N", help="threads (%(default)s)")
    pixels_help = "decode no image that says it has more (%(default)s)"
    add("--max-pixels", type=int, default=100_000_000, metavar="N", help=pixels_help)
    add("--strict", action="store_true", help="end with 1 for warnings, too")
    args = parser.parse_args()
    if args.workers < 1 or args.max_pixels < 1:
        parser.error("--workers and --max-pixels have to be 1 or more")
    return args


def run(args: argparse.Namespace) -> int:
    """Read, check, report, repair; the exit status."""
    from rethink_pretrain.data import inspection

    inspection.check_paths(args.json, args.images, [path for path in (args.fix, args.report) if path])
    document = inspection.read_document(args.json)
    report = inspection.Report()
    inspection.check_document(document, args.images, report)
    files = {}
    if not args.no_images:
        limits = {"max_pixels": args.max_pixels, "num_workers": args.workers}
        files = inspection.check_images(document, args.images, report, **limits)
    print(inspection.summary(document, report, args.json, None if args.fix else args.images))
    content = report.as_dict()
    if args.fix:
        words, content["fix"] = inspection.fix(document, args.images, files, args.fix)
        print("", words, sep="\n")
    if args.report:
        inspection.write(content, args.report)
    return PROBLEMS if report.num_errors or (args.strict and report.num_warnings) else CLEAN


@tool()
def main() -> None:
    """Errors of use in one line, with a status of their own."""
    args = parse_args()
    from rethink_pretrain.errors import UserError

    sys.stdout.reconfigure(errors="backslashreplace")  # names of files are in any letters
    logging.getLogger().setLevel(logging.CRITICAL)  # libraries about broken files: the report tells
    try:
        raise SystemExit(run(args))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(UNREADABLE) from None


if __name__ == "__main__":
    main()
