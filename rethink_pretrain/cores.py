"""How many cores there are for this process."""

import os


def usable_cores() -> int:
    """Those it may use: a cpuset counts, a quota such as `docker --cpus` does not; macOS cannot say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
