"""Every config key of ours. Host defaults stay as they are; the YAML that needs another value sets it."""

from detectron2.config import CfgNode

from ..solver.schedule import COCO_TRAIN2017_IMAGES


def add_rethink_config(cfg: CfgNode) -> None:
    """Add the `RETHINK` node to a config of the host. Call it before merging any of our files."""
    cfg.RETHINK = CfgNode()

    # Training length: "6x" (1x is 90k iterations of 16 images), "73ep", "8.6M images".
    # "" leaves SOLVER as it is. Otherwise SOLVER.MAX_ITER, STEPS, BASE_LR and WARMUP_ITERS follow
    # from it and from SOLVER.IMS_PER_BATCH, and are not set by hand.
    cfg.RETHINK.SCHEDULE = ""
    # Learning rate and warm-up length, in iterations, for a batch of 16 images. Other batches follow
    # by the linear rule.
    cfg.RETHINK.REFERENCE_LR = 0.02
    cfg.RETHINK.REFERENCE_WARMUP_ITERS = 500
    # Images that one "ep" of RETHINK.SCHEDULE counts; the default is COCO train2017.
    cfg.RETHINK.IMAGES_PER_EPOCH = COCO_TRAIN2017_IMAGES

    # Random initialisation: "detectron" (the paper's code) or "detectron2" (the host).
    # See modeling/init.py for what differs.
    cfg.RETHINK.INIT = "detectron2"
