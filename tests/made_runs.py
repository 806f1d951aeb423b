"""Folders of runs with numbers that the test knows."""

import itertools
import json
import math
import random
from pathlib import Path

import yaml

BATCH = 16


def make_run(
    folder: Path, *, weights="", aps=(10.0, 20.0), rows=None, config=True, sessions=None, **keys
) -> Path:
    """A finished run of 100 iterations for each of `aps`, the box AP after them, or with `rows` of its own.

    It has the host's form: the last evaluation stands in a row of its own. `keys` are those of the config,
    MODEL__DEVICE for MODEL.DEVICE; without `config` and `sessions` there is no config.yaml and no run.json.
    """
    folder.mkdir(parents=True)
    length = 100 * len(aps)
    if config:
        content = {
            "MODEL": {"WEIGHTS": weights, "BACKBONE": {"FREEZE_AT": 2 if weights else 0}},
            "SOLVER": {"IMS_PER_BATCH": BATCH, "MAX_ITER": length, "BASE_LR": 0.02},
            "SEED": 1,
            "OUTPUT_DIR": str(folder),
        }
        for key, value in keys.items():
            *nodes, name = key.split("__")
            node = content
            for part in nodes:
                node = node.setdefault(part, {})
            node[name] = value
        (folder / "config.yaml").write_text(yaml.safe_dump(content))
    if rows is None:
        rows = [host_row(i) for i in range(19, length, 20)]
        for number, ap in enumerate(aps[:-1], 1):
            rows[5 * number - 1] |= {"bbox/AP": ap}
        rows.append({"iteration": length, "bbox/AP": aps[-1]})
    (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if sessions is not None:
        (folder / "run.json").write_text(json.dumps({"sessions": sessions}))
    return folder


def host_row(iteration: int) -> dict[str, float]:
    """As the host's JSONWriter writes one: sorted keys, a loss that falls, half a second an iteration."""
    return {
        "data_time": 0.01,
        "eta_seconds": 12.5,
        "iteration": iteration,
        "lr": 0.02,
        "time": 0.5,
        "total_loss": 3.0 - iteration / 100,
    }


def ap_at(step: int, length: int, *, start: float, pace: float, top: float) -> float:
    """A curve as those of figure 1: it rises from `start`, and jumps where the learning rate drops."""
    plain = start + (0.75 * top - start) * (1 - math.exp(-step / pace))
    jump = (0.19 if step > 0.7 * length else 0) + (0.06 if step > 0.9 * length else 0)
    return plain + jump * top * (1 - math.exp(-length / pace))


def make_study(
    folder: Path,
    *,
    lengths=(1, 2, 3, 4, 5, 6),
    seeds=(0, 1, 2),
    noise=0.25,
    categories=("disc", "ring", "star"),
    arms=("random", "pretrained.pth"),
) -> list[Path]:
    """Runs in folder/<arm>_<n>x_seed<s>: random weights start lower and catch up with `top` later."""
    runs = []
    for arm, length, seed in itertools.product(arms, lengths, seeds):
        name = f"{arm.removesuffix('.pth')}_{length}x_seed{seed}"
        draw = random.Random(name)
        rows = _study_rows(arm, 1000 * length, draw, noise, categories)
        weights = "" if arm == "random" else f"output/{arm}"
        told = {"pretraining": {"images": 64_000.0, "instances": 64_000.0, "pixels": 2.6e8, "recipe": "toy"}}
        session = {
            "command": ["train_net.py", "--config-file", f"configs/toy/{arm}.yaml", "SEED", str(seed)],
            "commit": "0123456789abcdef",
            "versions": {"python": "3.11.7", "torch": "2.14.1", "detectron2": "0.6"},
            "hardware": {"gpus": [], "processes": 2, "cpu_cores": 2},
            "seed": seed,
            "recipe": {"images_per_step": BATCH},
            "data": [{"name": "toy_train", "images": 3000, "instances": 13_000, "digest": "d" * 64}],
            "weights": told if weights else {},
            "samples": {key: int(rows[-2][f"samples/{key}"]) for key in ("images", "instances", "pixels")},
            "train_seconds": 500.0 * length,
            "ended": "finished",
        }
        keys = {"RETHINK__SCHEDULE": f"{length}x", "SOLVER__MAX_ITER": 1000 * length}
        made = make_run(folder / name, weights=weights, rows=rows, sessions=[session], SEED=seed, **keys)
        runs.append(made)
    return runs


def _study_rows(arm, length, draw, noise, categories) -> list[dict]:
    shape = {"start": 0.0, "pace": 1500.0} if arm == "random" else {"start": 12.0, "pace": 700.0}
    offset = draw.gauss(0, noise)
    rows = []
    for step in range(100, length + 1, 100):
        ap = ap_at(step, length, top=42.0, **shape)
        row = {**host_row(step - 1), "total_loss": 3.2 * math.exp(-ap / 22) + draw.gauss(0, 0.02)}
        row |= {
            "samples/images": BATCH * step,
            "samples/instances": 70 * step,
            "samples/pixels": 90_000 * step,
        }
        rows.append(row)
        if step % 200 == 0 or step == length:
            box = ap + offset + draw.gauss(0, noise / 3)
            made = {"AP": box, "AP50": 1.4 * box, "AP75": 1.1 * box, "APs": 0.5 * box, "APm": box}
            made |= {f"AP-{name}": box + 4 * i - 4 for i, name in enumerate(categories)}
            made["APl"] = math.nan
            values = {f"bbox/{name}": value for name, value in made.items()}
            values |= {f"segm/{name}": 0.9 * value for name, value in made.items()}
            target = rows[-1] if step < length else {"iteration": length}
            target |= values
            rows += [target] if step == length else []
    return rows


def make_published(path: Path, *, length=90_000, period=5_000, top=40.0, start=0.0, pace=20_000.0) -> Path:
    """Metrics alone in a file, in the form of the host's model zoo.

    Rows every 20 iterations with the host's keys, in alphabetical order; evaluations in rows of their own
    without a loss, a NaN where a size has no objects, and some iterations twice, as after a resume.
    """
    lines = []
    for iteration in range(19, length, 20):
        row = {**host_row(iteration), "rank_data_time": 0.01, "fast_rcnn/cls_accuracy": 0.9, "loss_cls": 0.3}
        lines.append(row | {"total_loss": 1.5 - iteration / length, "roi_head/num_fg_samples": 90.0})
        if (iteration + 1) % period == 0:
            ap = ap_at(iteration + 1, length, start=start, pace=pace, top=top)
            values = {"bbox/AP": ap, "bbox/AP50": 1.4 * ap, "bbox/APs": math.nan, "bbox/AP-person": ap + 9}
            last = iteration + 1 == length
            lines.append({"iteration": length if last else iteration} | values | {"segm/AP": 0.9 * ap})
    repeated = lines[:30] + lines[20:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(dict(sorted(row.items()))) + "\n" for row in repeated))
    return path
