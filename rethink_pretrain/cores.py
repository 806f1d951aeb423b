"""How many cores there are for this process."""

import os


def usable_cores() -> int:
    """Those it may use, which a container or a scheduler may have cut down; macOS cannot say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
