#!/usr/bin/env python
"""Builds every config on the CPU and says what it is: tools/check_configs.py [CONFIG ...] [--update]

Needs no data and loads no weights. Ends with 1 where a config does not load or build, freezes random weights,
or differs in parameters or GFLOPs from tests/golden/models.json (--update rewrites that), and where an
experiment of results/paper.json has no config. GFLOPs are of one forward pass at 800 x 1216 with 512 RoIs.
"""

import argparse
import json
import sys
from pathlib import Path

from rethink_pretrain.command_line import tool

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
GOLDEN = ROOT / "tests" / "golden" / "models.json"
PAPER = ROOT / "results" / "paper.json"


def parse_args() -> argparse.Namespace:
    """Which configs."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    all_help = "files; by default all of configs/ but overlays and sweeps"
    parser.add_argument("configs", nargs="*", type=Path, metavar="CONFIG", help=all_help)
    parser.add_argument("--update", action="store_true", help="write the golden file anew")
    return parser.parse_args()


def name_of(config: Path) -> str:
    """As in the golden file: relative to configs/; the absolute path for a file from elsewhere."""
    path = config.resolve()
    return path.relative_to(CONFIGS).as_posix() if path.is_relative_to(CONFIGS) else str(path)


def check(config: Path, known: dict) -> tuple[dict, list[str], list[str]]:
    """Golden entry, cells of the table, problems."""
    from rethink_pretrain.config import load_config
    from rethink_pretrain.engine.describe_model import describe_model, describe_schedule

    cfg = load_config(config)
    model = describe_model(cfg, known)
    entry = model.golden()
    millions = [f"{count / 1e6:.3f}" for count in (model.total, model.frozen)]
    cells = [*millions, model.describe_norms(), f"{entry['gflops']:.1f}", describe_schedule(cfg)]
    frozen = model.frozen and not cfg.MODEL.WEIGHTS
    problems = [f'{model.frozen} parameters are frozen, but MODEL.WEIGHTS is ""'] if frozen else []
    return entry, cells, problems


def check_all(configs: list[Path], paper) -> tuple[dict[str, dict], list[str]]:
    """Print a line for each as it is done; golden entries and problems."""
    from rethink_pretrain.errors import UserError
    from rethink_pretrain.progress import track

    known, entries, problems, width = {}, {}, [], max(len(name_of(config)) for config in configs)
    row = f"{{:<{width}}}  {{:>8}} {{:>8}}  {{:<22}} {{:>8}}  {{:<60}} {{}}".format
    print(row("config", "params/M", "frozen/M", "norms", "GFLOPs", "schedule", "experiment"))
    for config in track(configs, "Building"):
        name = name_of(config)
        try:
            entries[name], cells, found = check(config, known)
        except Exception as error:  # of the host too: a broken config must not hide what the others are
            problems.append(f"{name}: {error if isinstance(error, UserError) else repr(error)}")
            continue
        problems += [f"{name}: {problem}" for problem in found]
        listed = ", ".join(experiment.id for experiment in paper.experiments_of(name))
        print(row(name, *cells, listed or "-"), flush=True)
    print(f"{len(entries)} configs, {len(known)} different models")
    return entries, problems


def run(args: argparse.Namespace) -> bool:
    """Whether all is well."""
    from rethink_pretrain.analysis.paper import check_experiments, read_paper
    from rethink_pretrain.config import find_configs
    from rethink_pretrain.engine.describe_model import compare

    paper = read_paper(PAPER)
    entries, problems = check_all(args.configs or find_configs(CONFIGS), paper)
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    ours = {name: entry for name, entry in entries.items() if not Path(name).is_absolute()}
    if args.update:
        kept = golden if args.configs else {}
        lines = [f"  {json.dumps(name)}: {json.dumps(e)}" for name, e in sorted({**kept, **ours}.items())]
        GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        print(f"Wrote {GOLDEN}")
    else:
        differing = {name: compare(golden.get(name), entry) for name, entry in ours.items()}
        problems += [f"{name}: {text} (--update accepts)" for name, text in differing.items() if text]
    if not args.configs:
        if not args.update:
            stale = [name for name in golden if not (CONFIGS / name).is_file()]
            problems += [
                f"{name}: in the golden file, but not in configs/ (--update drops it)" for name in stale
            ]
        for experiment in paper.experiments:
            print(f"paper, {experiment.id}: {len(experiment.configs)} configs")
        problems += check_experiments(paper, CONFIGS)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return not problems


@tool()
def main() -> None:
    """Status 1 for any problem."""
    args = parse_args()
    healthy = run(args)
    raise SystemExit(0 if healthy else 1)


if __name__ == "__main__":
    main()
