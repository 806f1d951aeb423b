"""tools/train_net.py in which SLOW, "evaluation" or "data", takes a second per image; SLOW_FILE says when."""

import importlib.util
import os
import sys
import time
from pathlib import Path

from detectron2.modeling import GeneralizedRCNN

from rethink_pretrain.data import RethinkDatasetMapper

SECONDS = 1.0
TRAIN_NET = Path(__file__).parents[1] / "tools" / "train_net.py"


def slow_down(cls: type, method: str, only_if=lambda self: True) -> None:
    fast = getattr(cls, method)

    def slow(self, *args, **kwargs):
        if only_if(self):
            with open(os.environ["SLOW_FILE"], "a") as file:
                file.write(f"{os.environ.get('RANK')}\n")
            time.sleep(SECONDS)
        return fast(self, *args, **kwargs)

    setattr(cls, method, slow)


def main() -> None:
    if os.environ["SLOW"] == "evaluation":
        slow_down(GeneralizedRCNN, "inference")
    else:
        slow_down(RethinkDatasetMapper, "__call__", lambda mapper: mapper.is_train)
    # As a module: the processes of a run start what sys.argv names, which is to be this script.
    spec = importlib.util.spec_from_file_location("train_net", TRAIN_NET)
    train_net = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(train_net)
    train_net.main()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        sys.exit(130)
