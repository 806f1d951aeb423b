"""Config keys, and the way from YAML files to a config that can train."""

from .defaults import add_rethink_config
from .load import find_configs, load_config
from .resolve import resolve, resolve_anew, scale_to
from .validate import validate

__all__ = [
    "add_rethink_config",
    "find_configs",
    "load_config",
    "resolve",
    "resolve_anew",
    "scale_to",
    "validate",
]
