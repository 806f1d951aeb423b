"""Predictions on images that are in no data set: pictures to look at, and files in COCO's formats."""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from PIL import Image
from torch import nn

from ..analysis.draw import as_rgb, draw_objects
from ..checkpoint import RethinkCheckpointer
from ..data import RethinkDatasetMapper, read_image
from ..data.datasets.coco_json import read_coco_json
from ..data.images import RAW
from ..errors import UserError
from ..files import write_json
from ..progress import track
from .precision import autocast
from .setup import register_datasets
from .trainer import Trainer

logger = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".npy")  # looked for in folders
_JPEG = {"quality": 92, "subsampling": 0}


class Predictor:
    """A model with its weights, from a resolved config, that takes files.

    names: category id -> name; ids are those of the data set's json where it is known, else from 1.
    """

    def __init__(self, cfg: CfgNode, run: Path | None = None):
        """Weights of the last checkpoint in the folder `run`, or else of MODEL.WEIGHTS.

        Raises `UserError` where there are none, or where they leave a part of the model random. Test-time
        augmentation is not applied.
        """
        categories = describe_categories(cfg)  # first: the number of classes can follow from the data
        self.names = {category["id"]: category["name"] for category in categories}
        self._skeletons = {c["id"]: c["skeleton"] for c in categories if c.get("skeleton")}
        self._precision = "bf16" if cfg.RETHINK.SPEED.PRECISION == "bf16" else "fp32"  # of its training
        self._model = Trainer.build_model(cfg)
        _load_weights(self._model, cfg.MODEL.WEIGHTS, run, cfg.RETHINK.TRUST_PICKLE)
        self._model.eval()
        self._mapper = RethinkDatasetMapper(cfg, is_train=False)
        # A picture to look at is RGB, whatever order the model takes.
        self._shown = RAW if cfg.INPUT.FORMAT == RAW else "RGB"

    def __call__(self, path: Path, image_id: int) -> tuple[np.ndarray, list[dict]]:
        """The image to look at, uint8 RGB (H, W, 3), and its COCO results, the highest score first.

        Raises `UserError` for a file that cannot be read or does not suit the model.
        """
        record = self._mapper({"file_name": str(path), "image_id": image_id})
        pixels = as_rgb(read_image(str(path), self._shown))
        with torch.no_grad(), autocast(self._model.device, self._precision):
            (output,) = self._model([record])
        ids = list(self.names)
        results = instances_to_coco_json(output["instances"].to("cpu"), image_id)
        results = [{**result, "category_id": ids[result["category_id"]]} for result in results]
        return pixels, sorted(results, key=lambda result: -result["score"])

    def draw(self, pixels: np.ndarray, results: Iterable[dict]) -> np.ndarray:
        """`results` on their image; small images are enlarged."""
        return draw_objects(pixels, results, self.names, skeletons=self._skeletons)


def find_images(paths: Sequence[Path], output: Path) -> list[Path]:
    """Files as they are given, and of folders the images at any depth, sorted, but for those in `output`."""
    files = []
    for path in paths:
        if path.is_dir():
            found = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            files += sorted(file for file in found if not file.resolve().is_relative_to(output.resolve()))
        elif path.exists():
            files.append(path)
        else:
            raise UserError(f"{path} does not exist.")
    if not files:
        raise UserError(f"No images in {', '.join(map(str, paths))}: looked for {', '.join(SUFFIXES)}.")
    return files


def predict_files(
    predictor: Predictor, files: Sequence[Path], output: Path, *, min_score: float
) -> tuple[int, int]:
    """Annotated images and two json files in `output`; how many images, and how many objects are drawn.

    predictions.json is a COCO results list of whatever the model finds, images.json what such a list refers
    to, without annotations. `min_score` is for the drawings alone. A file that cannot be read is a warning;
    raises `UserError` where none can be, and where `output` cannot be written.
    """
    images, predictions, num_drawn = [], [], 0
    with _writable(output):
        output.mkdir(parents=True, exist_ok=True)
    for path in track(files, "Predicting"):
        image_id = len(images) + 1
        try:
            pixels, results = predictor(path, image_id)
        except UserError as error:
            logger.warning("Left out: %s", error)
            continue
        confident = [result for result in results if result["score"] >= min_score]
        with _writable(output):
            drawing = Image.fromarray(predictor.draw(pixels, confident))
            drawing.save(output / f"{image_id:06}_{path.stem}.jpg", **_JPEG)
        height, width = pixels.shape[:2]
        images.append({"id": image_id, "file_name": path.as_posix(), "width": width, "height": height})
        predictions += results
        num_drawn += len(confident)
    if not images:
        raise UserError(f"None of {len(files)} files could be used.")
    categories = [{"id": k, "name": name} for k, name in predictor.names.items()]
    document = {"images": images, "annotations": [], "categories": categories}
    with _writable(output):
        write_json(output / "images.json", document, indent=None)
        write_json(output / "predictions.json", predictions, indent=None)
    return len(images), num_drawn


@contextlib.contextmanager
def _writable(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"Cannot write into {output}: {error.strerror or error}.") from None


def _load_weights(model: nn.Module, weights: str, run: Path | None, trust_pickle: bool) -> None:
    checkpointer = RethinkCheckpointer(model, str(run or ""), trust_pickle=trust_pickle)
    if run:
        weights = checkpointer.get_checkpoint_file() or str(run / "model_final.pth")
    if not weights:
        raise UserError("Predictions need weights: give --weights FILE, or --run with the folder of a run.")
    checkpointer.load(weights)
    if checkpointer.missing:
        raise UserError(
            f"{weights} leaves {len(checkpointer.missing)} parameters of the model random, such as "
            f"{min(checkpointer.missing)}. Is it of a detector that was trained with this config?"
        )


def describe_categories(cfg: CfgNode) -> list[dict]:
    """COCO's categories of the model's classes, in their order: of the data set, else "class k"."""
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        raise UserError("This model finds no objects: it labels pixels.")
    try:
        register_datasets(cfg)
    except UserError as error:
        logger.warning("Names of the categories are not known: %s", error)
        found = []
    else:
        found = next(filter(None, map(_categories_of, (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN))), [])
    head = cfg.MODEL.RETINANET if "RetinaNet" in cfg.MODEL.META_ARCHITECTURE else cfg.MODEL.ROI_HEADS
    if len(found) == head.NUM_CLASSES:
        return found
    return [{"id": k, "name": f"class {k}"} for k in range(1, head.NUM_CLASSES + 1)]


def _categories_of(name: str) -> list[dict]:
    """Of a registered set, as far as they can be had without loading it."""
    metadata = MetadataCatalog.get(name)
    names, json_file = metadata.get("thing_classes"), metadata.get("json_file")
    if names is not None:
        classes = metadata.get("thing_dataset_id_to_contiguous_id", {k + 1: k for k in range(len(names))})
        ids, skeleton = sorted(classes, key=classes.get), _skeleton(metadata)
        return [{"id": i, "name": names[classes[i]], "skeleton": skeleton} for i in ids]
    if json_file is None or not Path(json_file).is_file():
        return []
    categories = read_coco_json(Path(json_file), Path(metadata.image_root))[0]["categories"]
    return sorted(categories, key=lambda category: category["id"])


def _skeleton(metadata: Metadata) -> list[list[int]]:
    """COCO's pairs of keypoint numbers, from the host's pairs of names."""
    names = metadata.get("keypoint_names", ())
    pairs = metadata.get("keypoint_connection_rules", ())
    return [[names.index(start) + 1, names.index(end) + 1] for start, end, _ in pairs]
