"""Model parts under the host's registries. Importing this package registers them."""

from . import heads, init, rpn
from .backbone import build_resnet

__all__ = ["build_resnet", "heads", "init", "rpn"]
