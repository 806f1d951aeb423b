"""Rethinking ImageNet pre-training on Detectron2. Importing it registers the model parts.

It also silences three warnings of the host and fvcore about their own calls, which nobody else can mend.
"""

import warnings

for _message, _category in (
    ("`torch.jit.script` is deprecated", FutureWarning),
    (".*torch.cuda.amp", FutureWarning),
    ("torch.meshgrid: in an upcoming release", UserWarning),
):
    warnings.filterwarnings("ignore", _message, _category)

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

from . import modeling  # noqa: E402 - the filters come first

__all__ = ["modeling"]
__version__ = "0.1.0"
