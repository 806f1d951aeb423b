"""COCO AP of boxes, masks and keypoints, in which an evaluation without predictions is 0 and not a hole."""

import copy
import itertools
import json
import logging
import os
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table
from faster_coco_eval import COCO, COCOeval_faster
from pycocotools import mask as mask_util
from tabulate import tabulate

from ..errors import UserError
from ..garbage import without_collection
from . import box_masks
from .hotcoco_ap import agree, import_hotcoco, run_hotcoco, sample

logger = logging.getLogger(__name__)

AP_PACKAGES = ("faster-coco-eval", "hotcoco")

# task -> (key in COCO's result format, field of Instances)
TASKS = {
    "bbox": ("bbox", "pred_boxes"),
    "segm": ("segmentation", "pred_masks"),
    "keypoints": ("keypoints", "pred_keypoints"),
}


class RethinkCOCOEvaluator(COCOEvaluator):
    """The host's evaluator, with AP by faster-coco-eval or, where that agrees on a sample, by hotcoco.

    Results, in percent: task -> {AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl} and
    AP-<category>; keypoints have {AP, AP50, AP75, APm, APl, AR, AR50, AR75, ARm, ARl}. No predictions are
    AP 0: a detector from random weights starts there. NaN is only what the ground truth leaves undefined,
    such as APl without large objects. `output_dir` receives coco_instances_results.json; the host's
    instances_predictions.pth, of the same content, is left out.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] = ("bbox", "segm"),
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int = 100,
        kpt_oks_sigmas: Sequence[float] = (),
        ap_by: str = "faster-coco-eval",
    ):
        """`max_dets_per_image` > 10 is for boxes and masks (keypoints: 20); empty sigmas mean COCO's 17."""
        if isinstance(tasks, str) or not set(tasks) <= set(TASKS):
            raise UserError(f"Unknown tasks {tasks!r}. Choose from {sorted(TASKS)}.")
        if max_dets_per_image <= 10:
            raise UserError(f"max_dets_per_image is {max_dets_per_image}; AR10 needs more than 10.")
        if ap_by not in AP_PACKAGES:
            raise UserError(f"RETHINK.SPEED.COCO_EVAL is {ap_by!r}. Choose from {sorted(AP_PACKAGES)}.")
        hotcoco = import_hotcoco() if ap_by == "hotcoco" else None
        super().__init__(
            dataset_name,
            tasks,
            distributed,
            output_dir,
            max_dets_per_image=max_dets_per_image,
            use_fast_impl=False,  # it needs the host's compiled _C
            kpt_oks_sigmas=kpt_oks_sigmas,
        )
        self._coco_api = COCO(self._coco_api.dataset)
        self._hotcoco_api = hotcoco.COCO(self._coco_api.dataset) if hotcoco and self._do_evaluation else None

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """As the host's; masks may also be those of `WithBoxMasks`."""
        for image, output in zip(inputs, outputs, strict=True):
            if "instances" not in output or not output["instances"].has(box_masks.FIELD):
                super().process([image], [output])
                continue
            instances = output["instances"].to(self._cpu_device)
            found = instances_to_coco_json(instances, image["image_id"])
            rles = box_masks.encode_box_masks(
                instances.get(box_masks.FIELD), instances.pred_boxes, *instances.image_size
            )
            for result, rle in zip(found, rles, strict=True):
                result["segmentation"] = {**rle, "counts": rle["counts"].decode()}
            self._predictions.append({"image_id": image["image_id"], "instances": found})

    def evaluate(self, img_ids: list[int] | None = None) -> dict[str, dict[str, float]]:
        """Metrics over `img_ids` on the main process, {} on the others.

        The default is the metadata's `subset_image_ids`, and without it all images.
        """
        if img_ids is None:
            img_ids = self._metadata.get("subset_image_ids")
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            predictions = list(itertools.chain.from_iterable(comm.gather(predictions, dst=0)))
            if not comm.is_main_process():
                return {}
        self._results = {}
        if predictions and "proposals" in predictions[0]:
            self._eval_box_proposals(predictions)
        if not predictions or "instances" in predictions[0]:
            with without_collection():
                self._eval_predictions(predictions, img_ids)
        return copy.deepcopy(self._results)

    def _eval_predictions(self, predictions: list[dict], img_ids: list[int] | None = None) -> None:
        results = self._with_dataset_ids(itertools.chain.from_iterable(p["instances"] for p in predictions))
        if self._output_dir:
            PathManager.mkdirs(self._output_dir)
            with PathManager.open(os.path.join(self._output_dir, "coco_instances_results.json"), "w") as f:
                f.write(json.dumps(results))  # json.dump takes several times as long
        if not self._do_evaluation:
            logger.info("%s has no annotations: predictions are not evaluated.", self._metadata.name)
            return
        num_objects = self._count_objects(img_ids)
        if not num_objects:
            logger.warning("%s has no objects, or only crowds: all metrics are NaN.", self._metadata.name)
        elif not results:
            logger.warning("No predictions on %s: AP is 0.", self._metadata.name)
        for task in self._tasks:
            coco_eval = self._run_coco_eval(results, task, img_ids)
            self._results[task] = self._derive_coco_results(coco_eval, task)
        self._log_categories(num_objects)

    def _with_dataset_ids(self, results) -> list[dict]:
        """Results with the json's category ids. New dicts, so that evaluate() can be called again."""
        to_class = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if to_class is None:  # not loaded yet: this is what the host's load_coco_json is going to set
            to_class = {i: k for k, i in enumerate(sorted(self._coco_api.getCatIds()))}
        to_id = {k: i for i, k in to_class.items()}
        mapped = []
        for result in results:
            image_id, k = result["image_id"], result["category_id"]
            if k not in to_id:
                raise UserError(
                    f"A prediction on image {image_id} has class {k}, but {self._metadata.name} has "
                    f"{len(to_id)} classes, from 0. Set the model's NUM_CLASSES to {len(to_id)}."
                )
            if image_id not in self._coco_api.imgs:
                raise UserError(
                    f"A prediction on image {image_id}, which {self._metadata.name} does not have. "
                    "Evaluate on the data set that the predictions are of."
                )
            mapped.append({**result, "category_id": to_id[k]})
        return mapped

    def _count_objects(self, img_ids: list[int] | None) -> Counter:
        """Category id -> number of objects in `img_ids`, without crowds."""
        image_ids = set(self._coco_api.imgs if img_ids is None else img_ids)
        objects = (a for a in self._coco_api.anns.values() if not a.get("iscrowd", 0))
        return Counter(a["category_id"] for a in objects if a["image_id"] in image_ids)

    def _run_coco_eval(self, results: list[dict], task: str, img_ids: list[int] | None) -> Any:
        key, field = TASKS[task]
        if any(key not in r for r in results):
            raise UserError(
                f"Task {task!r} needs {field} in every prediction. Leave the task out, or predict it."
            )
        if self._hotcoco_api is not None:
            coco_eval = self._run_hotcoco(results, task, img_ids)
            if coco_eval is not None:
                return coco_eval
        coco_eval = self._prepare(results, task, img_ids)
        coco_eval.run()
        return coco_eval

    def _run_hotcoco(self, results: list[dict], task: str, img_ids: list[int] | None) -> Any | None:
        """None where it fails, or finds other numbers than faster-coco-eval on a sample of the images."""
        found = {result["image_id"] for result in results}
        # Images without results are all alike: a sample of them would prove nothing.
        chosen = sample(
            [i for i in sorted(self._coco_api.imgs if img_ids is None else img_ids) if i in found]
        )
        if not chosen:
            return None
        params = self._prepare([], task, img_ids).params
        if task == "keypoints":
            _check_num_keypoints(results, len(params.kpt_oks_sigmas))
        wanted = set(chosen)
        sampled = [result for result in results if result["image_id"] in wanted]
        expected = self._prepare(sampled, task, chosen)
        expected.run()
        try:
            stats = run_hotcoco(self._hotcoco_api, sampled, expected.params).stats
            if agree(stats, expected.stats):
                return run_hotcoco(self._hotcoco_api, results, params)
        except Exception as error:
            logger.warning("hotcoco failed (%s: %s). AP comes from the other.", type(error).__name__, error)
            return None
        message = "hotcoco and faster-coco-eval disagree in %s on %d images of %s: AP comes from the latter."
        logger.warning(message, task, len(chosen), self._metadata.name)
        return None

    def _prepare(self, results: list[dict], task: str, img_ids: list[int] | None) -> COCOeval_faster:
        """The evaluation with its parameters set, before it runs. `results` stay as they are."""
        gt = self._coco_api
        dt = _load_results(gt, results, task)
        coco_eval = COCOeval_faster(gt, dt, task, print_function=lambda _: None)  # the tables below say it
        coco_eval.params.catIds = sorted(gt.getCatIds())
        if img_ids is not None:
            coco_eval.params.imgIds = img_ids
        if task == "keypoints":
            if self._kpt_oks_sigmas:
                coco_eval.params.kpt_oks_sigmas = np.array(self._kpt_oks_sigmas)
            _check_num_keypoints([*gt.anns.values(), *dt.anns.values()], len(coco_eval.params.kpt_oks_sigmas))
        else:
            coco_eval.params.maxDets = list(self._max_dets_per_image)
        return coco_eval

    def _derive_coco_results(self, coco_eval, iou_type: str, class_names=None) -> dict[str, float]:
        params = coco_eval.params
        if iou_type == "keypoints":
            names = ["AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"]
        else:
            names = ["AP", "AP50", "AP75", "APs", "APm", "APl", *(f"AR{n}" for n in params.maxDets)]
            names += ["ARs", "ARm", "ARl"]
        res = {name: _percent(value) for name, value in zip(names, coco_eval.stats, strict=True)}
        logger.info("%s of %s:\n%s", iou_type, self._metadata.name, create_small_table(res))
        # (IoU threshold, recall threshold, category, area range, detections per image)
        precision, category_ids = coco_eval.eval["precision"], list(params.catIds)
        for category in self._coco_api.dataset["categories"]:
            of_category = precision[:, :, category_ids.index(category["id"]), 0, -1]
            res["AP-" + category["name"]] = _percent(of_category.mean())
        return res

    def _log_categories(self, num_objects: Counter) -> None:
        """AP of each category in every task, in the json's order."""
        rows = [
            [c["name"], num_objects[c["id"]], *(res["AP-" + c["name"]] for res in self._results.values())]
            for c in self._coco_api.dataset["categories"]
        ]
        headers = ["category", "objects", *(f"{task} AP" for task in self._results)]
        table = tabulate(rows, headers, tablefmt="pipe", floatfmt=".3f")
        logger.info("AP per category of %s:\n%s", self._metadata.name, table)


def _load_results(gt: COCO, results: list[dict], task: str) -> COCO:
    """`results`, of which copies get more keys, as annotations of the same images."""
    if results and task != "segm":
        return gt.loadRes([dict(result) for result in results])
    # `loadRes` would take the area of a box, if there is one, for that of its mask; without one it takes
    # several times as long as pycocotools' area, and finds boxes that nothing reads.
    masks = [
        {**result, "id": number, "iscrowd": 0, "area": int(mask_util.area(result["segmentation"]))}
        for number, result in enumerate(results, 1)
    ]
    return COCO({**gt.dataset, "annotations": masks})


def _check_num_keypoints(annotations: list[dict], num_sigmas: int) -> None:
    found = {len(a["keypoints"]) // 3 for a in annotations if a.get("keypoints")}
    if found - {num_sigmas}:
        raise UserError(
            f"Found {sorted(found)} keypoints per object, but {num_sigmas} sigmas. "
            "Set TEST.KEYPOINT_OKS_SIGMAS, one per keypoint."
        )


def _percent(value: float) -> float:
    """COCO's -1, undefined by the ground truth, becomes NaN."""
    return float(value) * 100 if value > -1 else float("nan")
