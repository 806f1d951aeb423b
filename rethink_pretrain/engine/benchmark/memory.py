"""Memory of a loader with worker processes on the annotations of 118k images: is there one copy of them?"""

import gc
import json
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...garbage import without_collection
from .rows import STOCK, limit_row, unmeasured_row
from .settings import Settings

_LIMIT = 1.3
_SMALL = 64  # images of the set whose loader shows what processes need without annotations
_BATCH = 2
_POINTS = 4  # at which memory is looked at
_MB = 1e6


def measure_memory(settings: Settings) -> list[dict[str, Any]]:
    """A row: proportional set size of all processes beyond that with next to no annotations, in copies.

    A copy is the bytes of all records, each pickled by itself with the highest protocol: about the least that
    a loader holds which unpickles records one by one. As Python objects they take several times as much. What
    one process frees counts as long as another one, forked before, has it still. Each contestant runs in a
    process of its own.
    """
    what = f"memory of a loader, {settings.memory_workers} workers, {settings.json_images:,} images"
    if not Path("/proc/self/smaps_rollup").exists():
        return [unmeasured_row(what, "this system does not tell the share of each process")]
    names = ["ours", *[STOCK] * settings.stock]
    found = {name: _in_process(name, settings) for name in names}
    copies = {name: [mb / one["copy_mb"] for mb in one["beyond_mb"]] for name, one in found.items()}
    facts = {"megabytes": found, "iterations": settings.memory_iterations}
    return [limit_row(what, "copies", copies, {"ours": _LIMIT}, **facts)]


def _in_process(name: str, settings: Settings) -> dict[str, Any]:
    """See `watch_loader`. "beyond_mb": with all images less with few, at each point in time."""
    words = [name, settings.root / "configs" / "scratch_1x.yaml"]
    tail = [settings.memory_workers, settings.memory_iterations]
    small, large = (_run([*words, n, *tail]) for n in (_SMALL, settings.json_images))
    beyond = [a - b for a, b in zip(large["mb"], small["mb"], strict=True)]
    return {"copy_mb": large["copy_mb"], "beyond_mb": beyond, "at_iterations": large["at"]}


def _run(words: list[Any]) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", __name__, *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def made_records(number: int) -> Iterator[dict[str, Any]]:
    """Records of the host's form, each with objects of its own."""
    from detectron2.structures import BoxMode

    from .made import make_document

    document = make_document(number)
    objects: dict[int, list[dict]] = {}
    for annotation in document["annotations"]:
        kept = {key: annotation[key] for key in ("bbox", "segmentation", "iscrowd")}
        kept |= {"bbox_mode": BoxMode.XYWH_ABS, "category_id": annotation["category_id"] - 1}
        objects.setdefault(annotation["image_id"], []).append(kept)
    for image in document["images"]:
        size = {key: image[key] for key in ("file_name", "width", "height")}
        yield {**size, "image_id": image["id"], "annotations": objects.pop(image["id"])}


def _load(images: int, lengths: list[int]) -> list[dict[str, Any]]:
    """All records; how many bytes they have, pickled, is added to `lengths`.

    As one number: a hundred thousand that stay would lie in the gaps between the records, and keep pages from
    being given back that belong to no loader.
    """
    with without_collection():
        records = list(made_records(images))
        lengths.append(sum(len(pickle.dumps(record, -1)) for record in records))
    return records


def touch(record: dict[str, Any]) -> dict[str, Any]:
    """A mapper that reads all annotations and no image."""
    kept = {key: record[key] for key in ("image_id", "width", "height")}  # the host's loader groups by them
    return {**kept, "sum": sum(sum(annotation["bbox"]) for annotation in record["annotations"])}


def watch_loader(name: str, config_file: Path, images: int, workers: int, iterations: int) -> dict[str, Any]:
    """Proportional set size in MB (10^6 bytes) of this process and its workers, as training goes on."""
    from detectron2.data import DatasetCatalog, build_detection_train_loader

    from ...config import load_config
    from ...data import build_train_loader

    lengths: list[int] = []
    DatasetCatalog.register("benchmark_memory", lambda: _load(images, lengths))
    values = {"DATASETS.TRAIN": "('benchmark_memory',)", "SOLVER.IMS_PER_BATCH": _BATCH, "SEED": 7}
    values |= {"DATALOADER.NUM_WORKERS": workers, "MODEL.DEVICE": "cpu"}
    cfg = load_config(config_file, (), [str(word) for pair in values.items() for word in pair])
    build = build_train_loader if name != STOCK else build_detection_train_loader
    batches = iter(build(cfg, mapper=touch))
    del cfg
    looks = {round(iterations * share / _POINTS) for share in range(1, _POINTS + 1)}
    mb = {}
    for number in range(1, iterations + 1):
        next(batches)
        if number in looks:
            gc.collect()
            mb[number] = proportional_mb()
    return {"copy_mb": sum(lengths) / _MB, "mb": list(mb.values()), "at": list(mb)}


def proportional_mb() -> float:
    """Of this process and its children; pages that they share count once, and those of files do not."""
    pids = [os.getpid(), *_children(os.getpid())]
    return sum(_pss_kb(pid) for pid in pids) * 1024 / _MB


def _children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


def _pss_kb(pid: int) -> int:
    """Libraries are left out: what they count depends on the other programs that have them open."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (ProcessLookupError, FileNotFoundError):  # ended, and awaited or not: it holds nothing
        return 0
    found = {key: int(value.split()[0]) for key, _, value in (line.partition(":") for line in lines[1:])}
    parts = [found[key] for key in ("Pss_Anon", "Pss_Shmem") if key in found]
    return sum(parts) if parts else found["Pss"]  # before Linux 5.4


def _main() -> None:
    name, config_file, *numbers = sys.argv[1:]
    logging.disable(logging.INFO)
    print(json.dumps(watch_loader(name, Path(config_file), *map(int, numbers))), flush=True)
    os._exit(0)  # workers of an unfinished iterator end with this process


if __name__ == "__main__":
    _main()
