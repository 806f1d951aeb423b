#!/usr/bin/env python
"""Writes the tables of configs and reported numbers from results/paper.json: tools/make_tables.py [--check]

Fills what stands between `<!-- table: NAME -->` and `<!-- end table -->` in README.md, configs/README.md,
docs/reproducing.md and docs/speed.md, and the lines `# Expected:` (where somebody reports a number) and
`# Cost:` of every config but the toy ones. NAME is `configs`, `extra`, `summary`, `costs`, `sweep-costs`,
`speed` and `speed-bars`, which are from results/bench, or `bf16`, from results/toy_precision; GFLOPs, which
the costs scale by, are in tests/golden/models.json.
With --check it writes nothing, and ends with 1 where one is out of date.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from rethink_pretrain.command_line import tool

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
GOLDEN = ROOT / "tests" / "golden" / "models.json"
PAGES = ("README.md", "configs/README.md", "docs/reproducing.md", "docs/speed.md")
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


def cost_table(paper, lengths: dict[str, float]) -> list[str]:
    """Config -> length -> hours on each hardware; "~" before what is scaled by GFLOPs."""
    from rethink_pretrain.analysis.costs import HARDWARE

    rows = [f"| config | iterations of 16 images | {' | '.join(f'hours, {h}' for h in HARDWARE)} |"]
    rows.append("|---|---|" + "---|" * len(HARDWARE))
    for config, length in lengths.items():
        cells = " | ".join(hours(cost) for cost in costs(paper, [(config, length)]))
        rows.append(f"| `{config.removesuffix('.yaml')}` | {length:,.0f} | {cells} |")
    return rows


def sweep_cost_table(paper) -> list[str]:
    """Sweep -> runs -> hours and GPU-hours on each hardware, and the sum without repetitions."""
    from rethink_pretrain.analysis.costs import HARDWARE

    head = " | ".join(f"hours, {h} | GPU-hours, {h.split()[1]}" for h in HARDWARE)
    rows = [f"| sweep | runs | {head} |", "|---|---|" + "---|---|" * len(HARDWARE)]
    sweeps = read_sweeps()
    runs = {key: run for group in sweeps.values() for key, run in group.items()}
    for name, group in {**sweeps, "all, each once": runs}.items():
        cells = [f"{hours(c)} | {hours(c, c.gpu_hours)}" for c in costs(paper, group.values())]
        rows.append(f"| {name} | {len(group)} | {' | '.join(cells)} |")
    return rows


def read_sweeps() -> dict[str, dict[tuple, tuple[str, float]]]:
    """Sweep -> its runs, what makes each of them one -> config and length. Not the toy ones."""
    from rethink_pretrain.analysis.sweeps import read_sweep

    sweeps: dict[str, dict] = {}
    for path in sorted((CONFIGS / "sweeps").glob("*.yaml")):
        for run in read_sweep(path):
            config = run.config.relative_to(CONFIGS).as_posix()
            opts = run.opts[: run.opts.index("OUTPUT_DIR")]
            if not config.startswith("toy/"):
                key = (config, tuple(opts))
                sweeps.setdefault(path.stem, {})[key] = (config, read_length(config, opts))
    return sweeps


def costs(paper, runs) -> list:
    """Of all `runs`, pairs of config and length, one after the other: for each hardware."""
    from rethink_pretrain.analysis.costs import HARDWARE, cost_of, total
    from rethink_pretrain.errors import UserError
    from rethink_pretrain.files import read_json

    gflops = {config: entry["gflops"] for config, entry in read_json(GOLDEN).items()}
    missing = next((config for config, _ in runs if config not in gflops), None)
    if missing:
        raise UserError(f"{GOLDEN} has no {missing}; run tools/check_configs.py --update first.")
    return [total(cost_of(paper, gflops, *run, hardware) for run in runs) for hardware in HARDWARE]


def hours(cost, value: float | None = None) -> str:
    """ "163", and "~204" where a part is scaled."""
    about = "" if cost.published == cost.hours else "~"
    return f"{about}{cost.hours if value is None else value:,.0f}"


def read_length(config: str, opts: Sequence[str] = ()) -> float:
    """Iterations of 16 images."""
    from rethink_pretrain.config import load_config
    from rethink_pretrain.solver.schedule import REFERENCE_BATCH

    solver = load_config(CONFIGS / config, opts=opts).SOLVER
    return solver.MAX_ITER * solver.IMS_PER_BATCH / REFERENCE_BATCH


def bf16_twins(seed: int) -> tuple[Path, Path]:
    """The folders of the toy study's shortest run in fp32 and in bf16."""
    results = ROOT / "results" / "toy_precision"
    return (
        results / f"fp32_seed{seed}",
        results / f"bf16_seed{seed}",
    )


def fill(text: str, page: str, paper, lengths: dict[str, float]) -> str:
    """`text` of a page with all its tables."""
    from rethink_pretrain.analysis.bench import benchmark_table, read_benchmarks
    from rethink_pretrain.analysis.twins import twin_table
    from rethink_pretrain.errors import UserError

    configs = list(lengths)
    papers = [config for config in configs if not config.startswith("extra/")]
    tables = {
        "configs": lambda: config_table(paper, papers),
        "extra": lambda: config_table(paper, [c for c in configs if c.startswith("extra/")]),
        "summary": lambda: summary_table(paper, configs),
        "costs": lambda: cost_table(paper, {c: lengths[c] for c in papers if not c.endswith("_tta.yaml")}),
        "sweep-costs": lambda: sweep_cost_table(paper),
        "speed-bars": lambda: benchmark_table(read_benchmarks(ROOT / "results" / "bench"), only_bars=True),
        "speed": lambda: benchmark_table(read_benchmarks(ROOT / "results" / "bench")),
        "bf16": lambda: twin_table({seed: bf16_twins(seed) for seed in range(3)}),
    }

    def replace(match: re.Match) -> str:
        if match[2] not in tables:
            raise UserError(f"{page}: no table is called {match[2]!r}; there are: {', '.join(tables)}.")
        return match[1] + "\n".join(tables[match[2]]()) + "\n" + match[3]

    return MARKERS.sub(replace, text)


def refresh_header(text: str, config: str, iterations: float, paper) -> str:
    """`text` of a config with the lines that follow from paper.json."""
    from rethink_pretrain.analysis.paper import describe_cost, describe_expected

    lines = {
        "Cost": describe_cost(paper, config, iterations),
        "Expected": describe_expected(paper, config),
    }
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

    paper = read_paper(ROOT / "results" / "paper.json")
    lengths = {config: read_length(config) for config in list_configs()}
    stale = []

    def update(path: Path, new: str) -> None:
        if new != path.read_text(encoding="utf-8"):
            stale.append(path)
            if not check:
                write_text(path, new)

    for config, length in lengths.items():
        path = CONFIGS / config
        update(path, refresh_header(path.read_text(encoding="utf-8"), config, length, paper))
    for page in PAGES:
        update(ROOT / page, fill((ROOT / page).read_text(encoding="utf-8"), page, paper, lengths))
    return stale


@tool()
def main() -> None:
    """Name every file that changed or would change."""
    args = parse_args()
    stale = run(args.check)
    for path in stale:
        print(f"{'out of date' if args.check else 'wrote'}: {path.relative_to(ROOT)}")
    raise SystemExit(1 if args.check and stale else 0)


if __name__ == "__main__":
    main()
