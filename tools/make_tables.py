#!/usr/bin/env python
"""Writes the tables of configs and reported numbers from results/paper.json: tools/make_tables.py [--check]

Fills what stands between `<!-- table: NAME -->` and `<!-- end table -->` in README.md and configs/README.md,
and the lines `# Expected:` (where somebody reports a number) and `# Cost:` of every config but the toy ones.
NAME is `configs`, `extra` or `summary`. With --check it writes nothing, and ends with 1 where one is out
of date.
"""

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
PAGES = ("README.md", "configs/README.md")
MARKERS = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end table -->)", re.DOTALL)


def parse_args() -> argparse.Namespace:
    """Write or check."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    parser.add_argument("--check", action="store_true", help="say what is out of date; write nothing")
    return parser.parse_args()


def list_configs() -> list[str]:
    """Relative to configs/: all but the toy ones, which nobody reports numbers for."""
    from rethink_pretrain.config import find_configs

    names = (path.relative_to(CONFIGS) for path in find_configs(CONFIGS))
    return [name.as_posix() for name in names if name.parts[0] != "toy"]


def metric_of(paper, config: str) -> str:
    """What a table shows of a config."""
    known = [name for number in paper.numbers_of(config) for name in number.metrics]
    return next((name for name in ("keypoint AP", "mAP") if name in known), "box AP")


def config_table(paper, configs: list[str]) -> list[str]:
    """config -> experiment -> reported -> ours."""
    rows = ["| config | experiment | reported | our run |", "|---|---|---|---|"]
    for config in configs:
        names = ", ".join(e.id for e in paper.experiments_of(config)) or "-"
        rows.append(
            f"| `{config.removesuffix('.yaml')}` | {names} | {reported(paper, config)} | {ours(config)} |"
        )
    return rows


def reported(paper, config: str) -> str:
    """ "box AP 41.3", "box AP about 36" or the number of another implementation; "-" for none."""
    metric = metric_of(paper, config)
    for number in paper.numbers_of(config):
        if metric in number.metrics:
            about = "" if number.label == "verified" else "about "
            source = "" if number.from_paper else f" ({number.experiment})"
            return f"{metric} {about}{number.metrics[metric]}{source}"
    return "-"


def ours(config: str) -> str:
    """What the header says behind `# Ours:`."""
    match = re.search(r"^# Ours: (.+)$", (CONFIGS / config).read_text(encoding="utf-8"), re.MULTILINE)
    return match[1].rstrip(".") if match else "-"


def summary_table(paper, configs: list[str]) -> list[str]:
    """Experiment -> what it is -> how many configs repeat it."""
    rows = ["| experiment | what | configs |", "|---|---|---|"]
    for experiment in paper.experiments:
        number = sum(config in configs for config in experiment.configs)
        rows.append(f"| {experiment.id} | {experiment.title} | {number} |")
    return rows


def fill(text: str, page: str, paper, configs: list[str]) -> str:
    """`text` of a page with all its tables."""
    from rethink_pretrain.errors import UserError

    tables = {
        "configs": lambda: config_table(paper, [c for c in configs if not c.startswith("extra/")]),
        "extra": lambda: config_table(paper, [c for c in configs if c.startswith("extra/")]),
        "summary": lambda: summary_table(paper, configs),
    }

    def replace(match: re.Match) -> str:
        if match[2] not in tables:
            raise UserError(f"{page}: no table is called {match[2]!r}; there are: {', '.join(tables)}.")
        return match[1] + "\n".join(tables[match[2]]()) + "\n" + match[3]

    return MARKERS.sub(replace, text)


def refresh_header(text: str, config: str, paper) -> str:
    """`text` of a config with the lines that follow from paper.json."""
    from rethink_pretrain.analysis.paper import describe_cost, describe_expected
    from rethink_pretrain.config import load_config
    from rethink_pretrain.solver.schedule import REFERENCE_BATCH

    solver = load_config(CONFIGS / config).SOLVER
    iterations = solver.MAX_ITER * solver.IMS_PER_BATCH / REFERENCE_BATCH
    lines = {"Cost": describe_cost(paper, config, iterations), "Expected": describe_expected(paper, config)}
    for name, line in lines.items():
        if line:
            text = re.sub(
                rf"^# {name}: .*$", lambda _, n=name, t=line: f"# {n}: {t}", text, flags=re.MULTILINE
            )
    return text


def run(check: bool) -> list[Path]:
    """The files that are out of date, rewritten unless `check`."""
    from rethink_pretrain.analysis.paper import read_paper
    from rethink_pretrain.files import write_text

    paper, configs = read_paper(ROOT / "results" / "paper.json"), list_configs()
    stale = []

    def update(path: Path, new: str) -> None:
        if new != path.read_text(encoding="utf-8"):
            stale.append(path)
            if not check:
                write_text(path, new)

    for config in configs:
        path = CONFIGS / config
        update(path, refresh_header(path.read_text(encoding="utf-8"), config, paper))
    for page in PAGES:
        update(ROOT / page, fill((ROOT / page).read_text(encoding="utf-8"), page, paper, configs))
    return stale


def main() -> None:
    """Name every file that changed or would change."""
    args = parse_args()
    from rethink_pretrain.errors import one_line_errors

    with one_line_errors():
        stale = run(args.check)
    for path in stale:
        print(f"{'out of date' if args.check else 'wrote'}: {path.relative_to(ROOT)}")
    raise SystemExit(1 if args.check and stale else 0)


if __name__ == "__main__":
    main()
