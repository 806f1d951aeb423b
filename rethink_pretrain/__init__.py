"""Rethinking ImageNet pre-training on Detectron2. Importing it registers the model parts, nothing else."""

try:
    import detectron2  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "detectron2":
        raise
    raise ModuleNotFoundError(
        "rethink_pretrain is a plugin of Detectron2, which is not installed. On a GPU machine follow its "
        "installation guide; elsewhere run tools/install_detectron2.py.",
        name="detectron2",
    ) from None

from . import modeling

__all__ = ["modeling"]
__version__ = "0.1.0"
