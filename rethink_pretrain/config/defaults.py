"""Every config key of ours. Host defaults stay as they are; the YAML that needs another value sets it."""

import os

from detectron2.config import CfgNode

from ..solver.schedule import COCO_TRAIN2017_IMAGES, IMAGES_1X


def add_rethink_config(cfg: CfgNode) -> None:
    """Add the `RETHINK` node to a config of the host. Call it before merging any of our files."""
    cfg.RETHINK = CfgNode()

    _add_schedule(cfg)
    _add_watch(cfg)
    _add_safety(cfg)
    _add_speed(cfg)

    # Random initialisation: "detectron" (the paper's code), "detectron2" (the host) or "msra" (the paper's
    # VGG-16). See modeling/init.py for what differs.
    cfg.RETHINK.INIT = "detectron2"

    # With ROI_HEADS.NAME SwitchedCascadeROIHeads: the last iterations (of 16 images) that train the cascade;
    # before them its first stage trains alone. 0 is the cascade from the first iteration on.
    cfg.RETHINK.CASCADE_ITERS = 0

    # Training augmentation besides flipping: "resize" is the host's INPUT.MIN_SIZE_TRAIN, "lsj" is
    # large-scale jitter: scaled by a factor of LSJ_SCALE relative to fitting LSJ_SIZE x LSJ_SIZE px, then
    # cropped or padded to that square.
    cfg.RETHINK.AUGMENTATION = "resize"
    cfg.RETHINK.LSJ_SIZE = 1024
    cfg.RETHINK.LSJ_SCALE = (0.1, 2.0)
    # Test-time augmentation (TEST.AUG): boxes of at least this IoU with a kept one move it, weighted by
    # their scores (Detectron's BBOX_VOTE, 0.9 there). 0 is off.
    cfg.RETHINK.TTA_BOX_VOTE_IOU = 0.0

    # COCO-format data of the user's own: four paths. DATASETS, the number of classes and the anchor sizes
    # then follow from the json files. "" is off.
    cfg.RETHINK.DATA = CfgNode({"TRAIN_JSON": "", "TRAIN_IMAGES": "", "VAL_JSON": "", "VAL_IMAGES": ""})

    # Pre-training of the backbone, with MODEL.META_ARCHITECTURE BackboneClassifier.
    cfg.RETHINK.CLASSIFIER = CfgNode()
    # Folders, also below $DETECTRON2_DATASETS, with a folder of pictures for each class; the number of
    # classes follows from them.
    cfg.RETHINK.CLASSIFIER.TRAIN_IMAGES = ""
    cfg.RETHINK.CLASSIFIER.VAL_IMAGES = ""
    cfg.RETHINK.CLASSIFIER.NUM_CLASSES = 1000
    # Side of its square input, px, and the smallest share of a picture, 0 to 1, that a training crop shows.
    cfg.RETHINK.CLASSIFIER.IMAGE_SIZE = 224
    cfg.RETHINK.CLASSIFIER.MIN_AREA = 0.08

    # What the doctor's grave findings do before the first step: "stop", "warn", or "off" for no examination.
    cfg.RETHINK.DOCTOR = "stop"
    # Share, 0 to 1, of the parameters that MODEL.WEIGHTS has to fill: of the backbone for a file that has
    # nothing else, else of the whole model but for predictors of another number of classes.
    cfg.RETHINK.MIN_COVERAGE = 0.95

    # Norms, by a name of layers.NORMS, where the host has no key; "" is none.
    cfg.MODEL.ROI_KEYPOINT_HEAD.NORM = ""
    # Share of the activations behind each fully connected layer of the box head that is dropped in training.
    cfg.MODEL.ROI_BOX_HEAD.DROPOUT = 0.0
    cfg.MODEL.VGG = CfgNode({"NORM": ""})


def _add_schedule(cfg: CfgNode) -> None:
    # Training length: "6x" (1x is 90k iterations of 16 images), "220k iterations" (of 16 images), "73ep",
    # "8.6M images". "" leaves SOLVER as it is. Otherwise SOLVER.MAX_ITER, STEPS, BASE_LR and WARMUP_ITERS
    # follow from it and from SOLVER.IMS_PER_BATCH, and are not set by hand.
    cfg.RETHINK.SCHEDULE = ""
    # Learning rate and warm-up length, in iterations, for a batch of 16 images. Other batches follow
    # by the linear rule.
    cfg.RETHINK.REFERENCE_LR = 0.02
    cfg.RETHINK.REFERENCE_WARMUP_ITERS = 500
    # Where the learning rate drops: iterations of 16 images before the end, or shares of the length where
    # below 1. () is the paper's rule: 60k and 20k before the end, for lengths below 2x at 2/3 and 8/9.
    cfg.RETHINK.DROPS = ()
    # Iterations of 16 images between two evaluations and two checkpoints; where SCHEDULE is set,
    # TEST.EVAL_PERIOD and SOLVER.CHECKPOINT_PERIOD follow by the linear rule. 0 leaves them, and a value set
    # by hand stays.
    cfg.RETHINK.REFERENCE_EVAL_PERIOD = 0
    cfg.RETHINK.REFERENCE_CHECKPOINT_PERIOD = 0
    # Images per process and step: SOLVER.IMS_PER_BATCH becomes this times the number of processes. 0 leaves
    # it.
    cfg.RETHINK.IMAGES_PER_GPU = 0
    # Images that a process passes through the model at once; the gradients of its share of IMS_PER_BATCH add
    # up before the update. 0 is all of its share. With 2, 1 to 8 GPUs take the paper's step of 8 x 2.
    cfg.RETHINK.MICRO_BATCH = 0
    # Images of one orientation (wide or tall) that stay together in a batch, where
    # DATALOADER.ASPECT_RATIO_GROUPING is on. The order of images depends on it, and not on the number of
    # processes.
    cfg.RETHINK.ASPECT_GROUP = 2
    # Images that one "ep" of RETHINK.SCHEDULE counts; the default is COCO train2017.
    cfg.RETHINK.IMAGES_PER_EPOCH = COCO_TRAIN2017_IMAGES
    # Images that "1x" of RETHINK.SCHEDULE counts, the paper's 90k iterations of 16; the paper's rule for the
    # drops scales with it. A study on a smaller set may have a smaller unit.
    cfg.RETHINK.IMAGES_1X = IMAGES_1X


def _add_watch(cfg: CfgNode) -> None:
    # What a run shows and keeps beside the host's metrics.
    cfg.RETHINK.WATCH = CfgNode()
    # Iterations between two rows of metrics.json and two log lines.
    cfg.RETHINK.WATCH.LOG_PERIOD = 20
    # Validation images drawn for TensorBoard at each evaluation, predictions beside the truth; 0 is none.
    cfg.RETHINK.WATCH.IMAGES = 4
    # Iterations between histograms of weights and gradients in TensorBoard; 0 is none.
    cfg.RETHINK.WATCH.HISTOGRAM_PERIOD = 0
    # Images of DATASETS.TEST whose training losses are computed at each evaluation, as val_loss/*; 0 is none.
    cfg.RETHINK.WATCH.VAL_LOSS_IMAGES = 0
    # Metric such as "bbox/AP", higher is better, whose best evaluation is kept as model_best.pth; "" is none.
    cfg.RETHINK.WATCH.BEST_METRIC = ""
    # Evaluations without a new best BEST_METRIC after which training ends. Those before the last drop of the
    # learning rate do not count, because AP leaps there. 0 is off.
    cfg.RETHINK.WATCH.PATIENCE = 0
    # Folders of earlier runs whose curves are the band that this one is expected in.
    cfg.RETHINK.WATCH.EXPECTED = ()
    # Weights & Biases: "" is off, "offline" writes into OUTPUT_DIR/wandb, "online" sends. It needs
    # `pip install wandb`.
    cfg.RETHINK.WATCH.WANDB = ""


def _add_safety(cfg: CfgNode) -> None:
    # Checkpoints model_<iteration>.pth that are kept, the newest ones; 0 keeps all. model_best.pth and
    # model_final.pth stay, and do not count.
    cfg.RETHINK.KEEP_CHECKPOINTS = 0
    # Whether weight files may build any Python object, that is, run code. Only --trust-pickle and the command
    # line can switch it on, no file.
    cfg.RETHINK.TRUST_PICKLE = False

    # What happens when the loss of a step is not finite, or explodes: "skip" leaves out the step; "lower_lr"
    # also halves the learning rate for the rest of the run; "roll_back" goes back to the last checkpoint and
    # on with other images; "stop" ends training. Every case is a line of incidents.jsonl.
    cfg.RETHINK.NUMERICS = CfgNode()
    cfg.RETHINK.NUMERICS.POLICY = "skip"
    # A loss explodes where it is this many times the median of the last 100 steps. 0 is off.
    cfg.RETHINK.NUMERICS.EXPLOSION = 100.0
    # So many steps in a row, or roll-backs without a step beyond the place, end training.
    cfg.RETHINK.NUMERICS.MAX_IN_A_ROW = 10

    # Training images that cannot be read are replaced by others of the set, up to this share of it.
    cfg.RETHINK.MAX_BAD_IMAGES = 0.01
    # Images of more pixels are not decoded.
    cfg.RETHINK.MAX_IMAGE_PIXELS = 100_000_000


def _add_speed(cfg: CfgNode) -> None:
    # The same training in less time. Every switch has a plain path with the same mathematics, the host's own;
    # with the environment variable RETHINK_SPEED=off that is the default of all.
    fast = os.environ.get("RETHINK_SPEED") != "off"
    cfg.RETHINK.SPEED = CfgNode()
    # Arithmetic of the forward and backward pass: "fp32", "bf16" by autocast, on CUDA and on a CPU, or
    # "auto", bf16 where the device has instructions for it; a resumed run keeps what it has.
    # Weights, losses and the statistics of norms stay fp32. fp16 is the host's SOLVER.AMP.ENABLED.
    cfg.RETHINK.SPEED.PRECISION = "fp32"
    # Of images and convolutions: "contiguous" (NCHW), "channels_last" (NHWC), or "auto", where a few timed
    # steps of the backbone decide when a run starts; a resumed run keeps what it has.
    cfg.RETHINK.SPEED.MEMORY_FORMAT = "contiguous"
    # One kernel for GroupNorm and the ReLU behind it, where the device has one (Triton on CUDA).
    cfg.RETHINK.SPEED.FUSED_NORM = fast
    # One kernel for the whole update of the weights.
    cfg.RETHINK.SPEED.FUSED_SGD = fast
    # Targets of the mask head for all RoIs at once on the device; RoIs of one object share its polygons.
    cfg.RETHINK.SPEED.MASK_TARGETS = fast
    # On a CPU in fp32, RoIAlign as sums over pixels.
    cfg.RETHINK.SPEED.FAST_ROI_ALIGN = fast
    # On a CPU in fp32, Winograd's algorithm for 3x3 convolutions of large maps, and matrix products for 1x1:
    # other roundings, about 1e-4 where the host's are 1e-5.
    cfg.RETHINK.SPEED.FAST_CONV = False
    # JPEG by libjpeg-turbo and resizing by torchvision: within 1 grey level of the host's.
    cfg.RETHINK.SPEED.FAST_IMAGES = fast
    # On a CPU, memory that a step frees stays with the process, which then holds its peak to its end.
    cfg.RETHINK.SPEED.KEEP_MEMORY = fast
    # Groups of images by aspect ratio, an even number, of which a batch has one (RETHINK.ASPECT_GROUP): more
    # of them pad less, and are another order of images. 2 are the host's, wide and tall.
    cfg.RETHINK.SPEED.ASPECT_BUCKETS = 2
    # Recompute activations of the backbone's blocks in the backward pass: less memory, a quarter more time.
    cfg.RETHINK.SPEED.CHECKPOINT_ACTIVATIONS = False
    # Several processes exchange gradients rounded to bf16: half of the traffic.
    cfg.RETHINK.SPEED.BF16_GRADIENTS = False
    # Images per process that an evaluation passes through the model at once. Padding to the size of the
    # largest may change what the model sees at the borders of the others.
    cfg.RETHINK.SPEED.TEST_BATCH = 1
    # Masks of an evaluation go from their boxes to RLE without being pasted into the image.
    cfg.RETHINK.SPEED.BOX_MASKS = fast
    # What computes COCO's AP: "faster-coco-eval", or "hotcoco" (`pip install hotcoco`), which has to agree
    # with it on a sample of each evaluation.
    cfg.RETHINK.SPEED.COCO_EVAL = "faster-coco-eval"
