"""A trained model as one file for others, with what it needs to be used and told apart."""

import json
import logging
from pathlib import Path

from detectron2.config import CfgNode
from torch import nn

from ..checkpoint import RethinkCheckpointer, store
from ..checkpoint.export import check_output, export_weights
from ..errors import UserError
from ..files import read_json
from .predict import describe_categories
from .trainer import Trainer

logger = logging.getLogger(__name__)


def export_model(
    cfg: CfgNode, source: str, output: Path, *, run: Path | None = None, force: bool = False
) -> int:
    """Write the weights of the checkpoint `source` in the model of `cfg` to `output`; how many parameters.

    All text beside them: "config" (YAML), "categories" (JSON), "source" and "source_sha256", "iteration"
    where the checkpoint has it, and "run", "commit" and "versions" (JSON) of the folder `run`. Raises
    `UserError` where the checkpoint leaves a part of the model random, or `output` cannot be written.
    """
    check_output(output, force)
    cfg.MODEL.DEVICE = "cpu"
    categories = _list_categories(cfg)  # first: the number of classes can follow from the data
    model = Trainer.build_model(cfg)
    checkpointer = RethinkCheckpointer(model, trust_pickle=cfg.RETHINK.TRUST_PICKLE)
    rest = checkpointer.load(source, checkpointables=[])
    _check_filled(source, model, checkpointer.missing)
    cfg.RETHINK.TRUST_PICKLE = False  # a file must not say True
    about = {
        "config": cfg.dump(),
        "categories": json.dumps(categories),
        "source": Path(source).name,
        "source_sha256": checkpointer.loaded["sha256"],
        **({"iteration": str(rest["iteration"])} if "iteration" in rest else {}),
        **(_describe_run(run) if run else {}),
    }
    export_weights(output, model.state_dict(), about)
    return sum(parameter.numel() for parameter in model.parameters())


def find_checkpoint(run: Path, name: str | None = None) -> str:
    """The file `name`, of the folder `run` or any, or else the last whole checkpoint of the run.

    Raises `UserError` where there is none.
    """
    if name:
        return str(run / name) if (run / name).is_file() else name
    path, faults = store.find_good(run)
    for broken, fault in faults.items():
        logger.warning("%s is passed over: %s.", run / broken, fault)
    if path is None:
        raise UserError(f"{run} holds no whole checkpoint. Name one with --checkpoint.")
    return str(path)


def _check_filled(source: str, model: nn.Module, missing: frozenset[str]) -> None:
    random = sorted(name for name, _ in model.named_parameters() if name in missing)
    if random:
        raise UserError(
            f"{source} leaves {len(random)} parameters of the model random, such as {random[0]}. Give the "
            "config that it was trained with."
        )


def _list_categories(cfg: CfgNode) -> list[dict]:
    try:
        return describe_categories(cfg)
    except UserError:  # a model that labels pixels
        return []


def _describe_run(run: Path) -> dict[str, str]:
    """Name of the run; commit and versions of its last session, as far as run.json has them."""
    path = run / "run.json"
    record = read_json(path) if path.is_file() else {}
    try:
        last = record["sessions"][-1]
        return {"run": run.name, "commit": str(last["commit"]), "versions": json.dumps(last["versions"])}
    except (TypeError, LookupError):
        return {"run": run.name}
