"""Folders of runs with numbers that the test knows."""

import json
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
