"""How long a run takes on 1 to many GPUs, by a formula for each part of it: a model on paper, no measurement.

Times are seconds, rates per second, 1 GB is 1e9 bytes. docs/scaling.md derives the formulas and compares the
results with published runs.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import UserError

# The largest batch of a published from-scratch run of this recipe: Detectron2's scratch 9x.
PUBLISHED_BATCH = 64
NOTICEABLE = 0.05  # share of a run's time from which a loss is worth naming


@dataclass(frozen=True)
class Machine:
    """Everything that a run's time depends on and that is not the run's own. Sources stand in `SOURCES`."""

    intra_gb_s: float = 100.0
    intra_us: float = 5.0
    inter_gb_s: float = 12.5
    inter_us: float = 15.0
    overlap: float = 0.85
    backward_share: float = 2 / 3
    sync_messages: float = 4.0
    sync_kb: float = 4.0
    loader_images_s: float = 76.0
    cores_per_gpu: float = 4.0
    eval_images: float = 5000.0
    eval_share: float = 1 / 3
    encode_s: float = 0.02
    ap_s: float = 10.5
    disk_gb_s: float = 0.23


SOURCES = {
    "intra_gb_s": "GB/s between the GPUs of a node; assumption: 2/3 of a V100's NVLink, 150 each way",
    "intra_us": "microseconds per message between GPUs of a node; assumption",
    "inter_gb_s": "GB/s between nodes, for all GPUs of a node together; assumption: one 100 Gbit/s card",
    "inter_us": "microseconds per message between nodes; assumption",
    "overlap": "share of the gradients' all-reduce that may hide behind backward; assumption: all of 183 MB "
    "but DDP's last bucket of 25",
    "backward_share": "share of a step that is backward; assumption: twice the products of forward",
    "sync_messages": "all-reduces of a SyncBN layer per step; layers/norm.py: two forward, two backward",
    "sync_kb": "kB of each of them; assumption: 1024 channels in fp32",
    "loader_images_s": "training images per second and core; measured, one core: 13.1 ms to decode a "
    "480x640 JPEG and to resize it, with its polygons, to 800x1067, by Detectron2's mapper",
    "cores_per_gpu": "cores that load for one GPU; Detectron2's default of DATALOADER.NUM_WORKERS",
    "eval_images": "images of one evaluation; COCO val2017",
    "eval_share": "inference over training time of an image; assumption: the share of forward",
    "encode_s": "seconds per image to encode its masks; measured, one core: 0.77 ms a mask, times 133,000 "
    "detections in 5,000 images",
    "ap_s": "seconds of AP on rank 0 while the others wait; measured, faster-coco-eval, boxes 3.3, masks 7.2",
    "disk_gb_s": "GB/s to disk; measured, one disk: 366 MB written, flushed and renamed in 1.60 s",
}

_SHARES = {"overlap": 1.0, "backward_share": 0.99}  # the most they can be: no step is backward alone
_DIVISORS = ("intra_gb_s", "inter_gb_s", "loader_images_s", "cores_per_gpu", "disk_gb_s")


def build_machine(values: dict[str, float]) -> Machine:
    """The assumed machine but for `values`. Raises `UserError` for an unknown name or an impossible value."""
    unknown = next((name for name in values if name not in SOURCES), None)
    if unknown is not None:
        raise UserError(f"Nothing called {unknown!r} is assumed; there are: {', '.join(SOURCES)}.")
    for name, value in values.items():
        if value > _SHARES.get(name, value):
            raise UserError(f"{name} is a share of 0 to {_SHARES[name]:g}, not {value:g}.")
        if name in _DIVISORS and value <= 0:
            raise UserError(f"{name} must be above 0, not {value:g}.")
    return Machine(**values)


class Job(NamedTuple):
    """What is trained, and how fast one GPU is.

    `images` counts every visit. A step takes a GPU `fixed_seconds` and `seconds_per_image` for each image.
    `parameters` are all, `trainable` those with a gradient, of `gradient_bytes` (2 where it travels in half
    precision). `synced_norms` are SyncBN layers. An evaluation takes place every `eval_every` images and at
    the end, a checkpoint likewise; 0 is at the end alone.
    """

    images: float
    images_per_gpu: int
    seconds_per_image: float
    parameters: int
    trainable: int
    fixed_seconds: float = 0.0
    gradient_bytes: int = 4
    synced_norms: int = 0
    eval_every: float = 0.0
    checkpoint_every: float = 0.0

    @property
    def step_seconds(self) -> float:
        """Forward and backward of one GPU's images, alone."""
        return self.fixed_seconds + self.images_per_gpu * self.seconds_per_image

    @property
    def checkpoint_gb(self) -> float:
        """Weights, and the momentum of those that train, in fp32."""
        return 4 * (self.parameters + self.trainable) / 1e9


class Prediction(NamedTuple):
    """Of one run. `step` and `run` are seconds by part; `run` has evaluation and checkpoints as well."""

    gpus: int
    nodes: int
    batch: int
    iterations: int
    step: dict[str, float]
    run: dict[str, float]

    @property
    def seconds_per_iteration(self) -> float:
        """All parts of `step`."""
        return sum(self.step.values())

    @property
    def hours(self) -> float:
        """The whole run, evaluations and checkpoints too."""
        return sum(self.run.values()) / 3600

    @property
    def gpu_hours(self) -> float:
        """`hours` on all GPUs."""
        return self.gpus * self.hours

    @property
    def efficiency(self) -> float:
        """Share of the time, 0 to 1, that the GPUs spend in forward and backward."""
        return self.run["compute"] / sum(self.run.values())

    @property
    def largest_loss(self) -> tuple[str, float]:
        """The part other than compute that takes most, and its share of the time."""
        losses = {part: seconds for part, seconds in self.run.items() if part != "compute"}
        part = max(losses, key=losses.__getitem__)
        return part, losses[part] / sum(self.run.values())

    def breaks_first(self) -> str:
        """What stands in the way at this size: the recipe first, then the largest loss of time."""
        part, share = self.largest_loss
        reasons = [f"no published run above batch {PUBLISHED_BATCH}"] if self.batch > PUBLISHED_BATCH else []
        reasons += [f"{part} ({share:.0%})"] if share >= NOTICEABLE else []
        return ", then ".join(reasons) or "nothing"


def ring_seconds(size: float, members: int, bandwidth: float, latency: float) -> float:
    """An all-reduce of `size` bytes around a ring: 2(n-1) messages, each of size/n; 0 for one member."""
    return 2 * (members - 1) * (size / members / bandwidth + latency)


def tree_seconds(size: float, members: int, bandwidth: float, latency: float) -> float:
    """The same up and down a binary tree, in pieces that follow one another: better for small messages."""
    return (2 * size / bandwidth + 2 * math.ceil(math.log2(members)) * latency) if members > 1 else 0.0


def all_reduce_seconds(size: float, gpus: int, gpus_per_node: int, machine: Machine) -> float:
    """Inside the nodes, then between them, each by ring or tree, whichever is faster, as NCCL chooses.

    Between nodes every GPU carries its share of `size`, and all of a node share its bandwidth.
    """
    inside, nodes = _split(gpus, gpus_per_node)
    links = (
        (inside, machine.intra_gb_s * 1e9, machine.intra_us * 1e-6),
        (nodes, machine.inter_gb_s * 1e9, machine.inter_us * 1e-6),
    )
    return sum(min(ring_seconds(size, *link), tree_seconds(size, *link)) for link in links)


def predict(job: Job, gpus: int, gpus_per_node: int = 8, machine: Machine | None = None) -> Prediction:
    """The run of `job` on `gpus`. Raises `UserError` where they do not fill whole nodes."""
    machine = machine or Machine()
    _, nodes = _split(gpus, gpus_per_node)
    batch = gpus * job.images_per_gpu
    iterations = math.ceil(job.images / batch)
    step = _step(job, gpus, gpus_per_node, machine)
    run = {part: iterations * seconds for part, seconds in step.items()}
    run["evaluation"] = _times(job.images, job.eval_every) * _evaluation(job, gpus, machine)
    run["checkpoints"] = _times(job.images, job.checkpoint_every) * job.checkpoint_gb / machine.disk_gb_s
    return Prediction(gpus, nodes, batch, iterations, step, run)


def compute_seconds(
    measured: float, job: Job, gpus: int, gpus_per_node: int = 8, machine: Machine | None = None
) -> float:
    """Forward and backward in an iteration that took `measured` seconds on `gpus`: the inverse of `predict`.

    Takes for granted that loading kept up. Raises `UserError` where communication alone takes longer.
    """
    machine = machine or Machine()
    reduce, sync = _communication(job, gpus, gpus_per_node, machine)
    # An iteration is c + max(r (1 - overlap), r - share c) + sync, c of compute; both branches grow with c.
    rest = measured - sync
    compute = min(rest - reduce * (1 - machine.overlap), (rest - reduce) / (1 - machine.backward_share))
    if compute <= 0:
        raise UserError(f"{measured} s per iteration on {gpus} GPUs is less than communication takes here.")
    return compute


def _split(gpus: int, gpus_per_node: int) -> tuple[int, int]:
    """GPUs of a node that take part, and nodes."""
    if min(gpus, gpus_per_node) < 1 or (gpus > gpus_per_node and gpus % gpus_per_node):
        raise UserError(f"{gpus} GPUs are no whole number of nodes with {gpus_per_node} each.")
    return min(gpus, gpus_per_node), max(gpus // gpus_per_node, 1)


def _step(job: Job, gpus: int, gpus_per_node: int, machine: Machine) -> dict[str, float]:
    reduce, sync = _communication(job, gpus, gpus_per_node, machine)
    compute = job.step_seconds
    gradients = reduce - min(machine.overlap * reduce, machine.backward_share * compute)
    loading = job.images_per_gpu / (machine.loader_images_s * machine.cores_per_gpu)
    waiting = max(0.0, loading - compute - gradients - sync)
    return {"compute": compute, "gradients": gradients, "SyncBN": sync, "loading": waiting}


def _communication(job: Job, gpus: int, gpus_per_node: int, machine: Machine) -> tuple[float, float]:
    """All-reduces of the gradients and of SyncBN; nothing hides the latter, a layer waits for it."""
    reduce = all_reduce_seconds(job.gradient_bytes * job.trainable, gpus, gpus_per_node, machine)
    message = all_reduce_seconds(machine.sync_kb * 1e3, gpus, gpus_per_node, machine)
    return reduce, job.synced_norms * machine.sync_messages * message


def _evaluation(job: Job, gpus: int, machine: Machine) -> float:
    """Inference is spread over the GPUs; AP is not."""
    image = machine.eval_share * job.seconds_per_image + machine.encode_s
    return math.ceil(machine.eval_images / gpus) * image + machine.ap_s


def _times(images: float, every: float) -> int:
    """How often something happens that happens at the end, too."""
    return math.ceil(images / every) if every else 1
