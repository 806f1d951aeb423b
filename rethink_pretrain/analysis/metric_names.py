"""Names of the host's metrics in words, and their order in a table."""

import re

_TASKS = {
    "bbox": "box",
    "segm": "mask",
    "keypoints": "keypoint",
    "sem_seg": "semantic",
    "panoptic_seg": "panoptic",
}
_NAMES = {
    **{name: name for name in ("AP", "AP50", "AP75")},
    "APs": "AP, small objects",
    "APm": "AP, medium objects",
    "APl": "AP, large objects",
    **{name: name for name in ("AR1", "AR10", "AR100")},
    "ARs": "AR, small objects",
    "ARm": "AR, medium objects",
    "ARl": "AR, large objects",
}
OF_CATEGORY = re.compile(r"(?P<metric>.*?/(AP|IoU|ACC))-(?P<category>.+)")


def spell(metric: str) -> str:
    """ "mask AP, small objects" for segm/APs."""
    *tasks, name = metric.split("/")
    return " ".join([*(_TASKS.get(task, task) for task in tasks), _NAMES.get(name, name)])


def order(metric: str) -> tuple:
    """To sort by: boxes, masks, keypoints, others; in each AP, by threshold, by size, others."""
    task, _, name = metric.rpartition("/")
    tasks, names = list(_TASKS), list(_NAMES)
    return (
        tasks.index(task) if task in tasks else len(tasks),
        task,
        names.index(name) if name in names else len(names),
        name,
    )


def capital(words: str) -> str:
    """With a capital at its beginning."""
    return words[:1].upper() + words[1:]
