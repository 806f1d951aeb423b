"""Rethinking ImageNet pre-training on Detectron2. Importing it registers the model parts, nothing else."""

from . import modeling

__all__ = ["modeling"]
__version__ = "0.1.0"
