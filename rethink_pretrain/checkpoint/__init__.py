"""Checkpoints and weight files: written whole, verified, read without running what may be in them."""

from . import store
from .checkpointer import RethinkCheckpointer
from .fit import FPN_MODULES, coverage, first_conv, inflate_first_conv

__all__ = ["FPN_MODULES", "RethinkCheckpointer", "coverage", "first_conv", "inflate_first_conv", "store"]
