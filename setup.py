"""Metadata of the package. Versions that were tested together stand in requirements.lock."""

from setuptools import find_packages, setup

RAW = ["tifffile"]  # images of any number of channels and bits, where they are TIFF
SLURM = ["submitit"]
HOTCOCO = ["hotcoco"]
DOCS = ["sphinx", "myst-parser", "furo"]
NOTEBOOK = ["nbclient", "nbformat", "ipykernel"]
TEST = [*RAW, *SLURM, *HOTCOCO, *NOTEBOOK, "pytest", "pytest-xdist", "hypothesis", "ruff"]

setup(
    name="rethink-pretrain",
    version="0.1.0",
    description="Train Detectron2 detectors from random weights and compare them with pre-trained ones",
    author="The rethink_pretrain authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["rethink_pretrain", "rethink_pretrain.*"]),
    package_data={"rethink_pretrain.analysis": ["templates/*.html"]},
    python_requires=">=3.10,<3.14",
    # Without detectron2: the package index has none under that name. tools/install_detectron2.py brings it.
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "numpy",
        "pillow>=10",
        "fvcore",
        "iopath",
        "yacs",
        "omegaconf",
        "hydra-core",
        "cloudpickle",
        "termcolor",
        "tabulate",
        "tqdm",
        "tensorboard",
        "pycocotools",
        "matplotlib",
        "faster-coco-eval>=1.6.5",
        "shapely>=2",
        "rich",
        "pyyaml",
        "jinja2",
        "safetensors",
        "simplejpeg",
        "scipy",
    ],
    extras_require={
        "raw": RAW,
        "slurm": SLURM,
        "wandb": ["wandb"],
        "hotcoco": HOTCOCO,
        "docs": DOCS,
        "test": TEST,
        "dev": [*TEST, *DOCS, "pre-commit", "pytest-cov"],
    },
)
