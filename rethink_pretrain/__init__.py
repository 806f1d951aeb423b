"""Rethinking ImageNet pre-training on Detectron2. Importing it registers the model parts.

They are registered with the host's modeling package, at once if that is loaded and else as soon as it is:
what needs neither (figures, sweeps, the state of runs, `--help`) then starts without torch.

It also silences three warnings of the host and fvcore about their own calls, which nobody else can mend.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import warnings

__version__ = "0.1.0"

_HOST = "detectron2.modeling"
_OURS = f"{__name__}.modeling"

for _message, _category in (
    ("`torch.jit.script` is deprecated", FutureWarning),
    (".*torch.cuda.amp", FutureWarning),
    ("torch.meshgrid: in an upcoming release", UserWarning),
):
    warnings.filterwarnings("ignore", _message, _category)


class _RegisterAfterHost(importlib.abc.MetaPathFinder):
    """Finds the host's modeling package where Python does, and has ours loaded right behind it."""

    def find_spec(self, name, path=None, target=None) -> importlib.machinery.ModuleSpec | None:
        """Of the host's modeling package alone; None leaves every other `name` to Python."""
        spec = importlib.machinery.PathFinder.find_spec(name, path) if name == _HOST else None
        if spec is not None:
            run_host = spec.loader.exec_module

            def run_both(module) -> None:
                run_host(module)
                importlib.import_module(_OURS)

            spec.loader.exec_module = run_both
        return spec


def __getattr__(name: str):
    """`rethink_pretrain.modeling`, also before the host is loaded."""
    if name == "modeling":
        return importlib.import_module(_OURS)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if _HOST in sys.modules:
    importlib.import_module(_OURS)
else:
    sys.meta_path.insert(0, _RegisterAfterHost())
