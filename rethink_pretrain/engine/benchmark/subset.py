"""From a json of COCO's size to the records of 10,000 of its images."""

import json
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from ...data import register_subset
from .made import make_document, register_made
from .rows import STOCK, speed_row, time_by_turns
from .settings import Settings

_SET = "benchmark_json"
_SHARE = 10_000 / 118_287  # 10k of train2017


def measure_subset(settings: Settings) -> list[dict[str, Any]]:
    """Rows: all records of the json, and those of a subset. The host has no subsets: it loads all of them."""
    path = settings.folder / "large.json"
    document = make_document(settings.json_images)
    with path.open("w", encoding="utf-8") as file:
        json.dump(document, file)
    objects = len(document["annotations"])
    del document
    count = max(round(settings.json_images * _SHARE), 1)
    register_made(_SET, path, settings.folder)
    subset = f"{_SET}@{count}"
    if subset in DatasetCatalog.list():  # of an earlier measurement
        DatasetCatalog.remove(subset)
        MetadataCatalog.remove(subset)
    register_subset(subset)
    size = f"{settings.json_images:,} images, {objects:,} objects"
    whole = {"ours": lambda: _check(DatasetCatalog.get(_SET), settings.json_images)}
    part = {"ours": lambda: _check(DatasetCatalog.get(subset), count)}
    if settings.stock:
        whole[STOCK] = lambda: _check(_load_by_host(path), settings.json_images)
        part[STOCK] = lambda: _check(_load_by_host(path)[:count], count)
    rows = []
    for what, contestants in ((f"reading a json, {size}", whole), (f"a subset of {count:,} of them", part)):
        seconds = time_by_turns(contestants, settings.json_rounds, warm_up=0)
        rows.append(speed_row(what, seconds, unit="readings/s", megabytes=path.stat().st_size / 1e6))
    return rows


def _load_by_host(path: Path) -> list[dict[str, Any]]:
    return load_coco_json(str(path), str(path.parent))


def _check(records: list[dict[str, Any]], number: int) -> None:
    assert len(records) == number, f"{len(records)} records, not {number}"
