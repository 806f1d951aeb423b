"""Where what is looked at comes from: the folder of a run, the files of a data set, an image file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_dict

from ..analysis.draw import as_rgb
from ..config import load_config
from ..data import check_datasets, read_image, register_named
from ..data.datasets.coco_json import read_coco_json
from ..data.images import RawOnly, read_stored
from ..errors import UserError


def load_run(folder: Path, overlays: Sequence[str] = (), opts: Sequence[str] = ()) -> CfgNode:
    """The config of the run in `folder`, wherever that is now, then `overlays` and KEY VALUE pairs.

    Raises `UserError` where there is none.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {str(folder)!r}.")
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{str(folder)!r} holds no run: config.yaml is missing. Give the OUTPUT_DIR of one.")
    return load_config(folder / "config.yaml", overlays, [*opts, "OUTPUT_DIR", str(folder)])


def find_results(folder: Path) -> Path:
    """The predictions that a run's last evaluation left in `folder`."""
    path = folder / "inference" / "coco_instances_results.json"
    if not path.is_file():
        raise UserError(
            f"{path} is missing: the run was not evaluated, or not on COCO's format. Evaluate it with "
            f"tools/train_net.py --config-file {folder / 'config.yaml'} --eval-only --resume."
        )
    return path


def read_dataset(name: str) -> tuple[dict[str, Any], Path]:
    """The COCO document of a registered set, of a subset its images alone, and the folder of its images.

    Sets of other formats are converted. Raises `UserError` for an unknown name, missing files, and sets
    without objects.
    """
    register_named([name])
    check_datasets([name])
    metadata = MetadataCatalog.get(name)
    if metadata.get("json_file") is None:
        return _convert(name), Path()
    folder = Path(metadata.image_root)
    document, _ = read_coco_json(Path(metadata.json_file), folder)
    if metadata.get("subset") is not None:
        DatasetCatalog.get(name)  # chooses the images
        keep = set(metadata.subset_image_ids)
        document["images"] = [image for image in document["images"] if image["id"] in keep]
        document["annotations"] = [a for a in document["annotations"] if a["image_id"] in keep]
    return document, folder


def _convert(name: str) -> dict[str, Any]:
    if MetadataCatalog.get(name).get("thing_classes") is None:
        raise UserError(f"{name!r} has no objects to show, only labels of pixels.")
    return convert_to_coco_dict(name)


def read_picture(path: str | Path) -> np.ndarray:
    """Any image file that can be trained on, uint8 RGB (H, W, 3), to look at; see `as_rgb`.

    Raises `UserError` for a file that cannot be read.
    """
    try:
        return read_image(str(path), "RGB")
    except RawOnly:
        return as_rgb(read_stored(str(path)))
