"""How much of everything a benchmark does."""

import math
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """The defaults fit one command of ten minutes on two CPU cores."""

    folder: Path  # for made data and outputs; it exists
    root: Path  # of this repository, whose configs and tools are measured
    stock: bool = True  # Detectron2's own parts, too
    config_file: Path | None = None  # of the train part: this one alone
    overlays: tuple[str, ...] = ("fast",)  # of the contestant "ours, fast"
    opts: tuple[str, ...] = ()  # of all contestants of the train part
    images_per_batch: int | None = None  # of the train part; by default 8 on the toy set, 1 at 800 px
    toy_steps: int = 10
    large_steps: int = 5
    train_budget: float = 40.0  # seconds of a config's steps, after which fewer have to do
    gpu_steps: int = 30
    loader_images: int = 24
    loader_rounds: int = 9
    eval_images: int = 5000
    eval_mask_images: int = 500  # fewer: pycocotools takes three times as long for a mask as for a box
    eval_per_image: int = 26  # detections: 130k in all
    eval_rounds: int = 1  # of pycocotools a minute each
    encoded_images: int = 4  # of 100 masks
    mask_rois: int = 512
    mask_rounds: int = 7
    layer_maps: int = 1  # sizes of map, of three
    layer_rounds: int = 2
    json_images: int = 20_000
    json_rounds: int = 1
    startup_rounds: int = 1
    memory_iterations: int = 2000
    memory_workers: int = 4

    def full(self) -> "Settings":
        """The sizes and rounds of results/bench: three quarters of an hour."""
        return replace(
            self,
            toy_steps=30,
            large_steps=11,
            eval_mask_images=self.eval_images,
            eval_rounds=3,
            layer_maps=3,
            layer_rounds=9,
            startup_rounds=7,
            json_images=118_287,  # of train2017
            train_budget=math.inf,
        )

    def tiny(self) -> "Settings":
        """Seconds in all: for a look at whether everything runs. Its figures mean nothing."""
        return replace(
            self,
            opts=("INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.MAX_SIZE_TRAIN", "128", *self.opts),
            toy_steps=2,
            large_steps=1,
            gpu_steps=2,
            loader_images=4,
            loader_rounds=2,
            eval_images=40,
            eval_mask_images=40,
            eval_per_image=8,
            encoded_images=1,
            mask_rois=64,
            mask_rounds=2,
            layer_maps=1,
            layer_rounds=1,
            json_images=200,
            startup_rounds=1,
            memory_iterations=40,
            memory_workers=1,
        )
