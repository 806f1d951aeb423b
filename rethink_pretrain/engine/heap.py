"""Memory that a training step frees stays with the process, for the next step to take."""

import ctypes

# Of glibc's malloc.h; torch's tensors on a CPU come from malloc.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_MOST_FREE = 2**31 - 1  # bytes at the end of the heap, beyond which they go back to the system


def keep_freed_memory() -> bool:
    """For the rest of the process; False where the C library has no such switches (it is not glibc).

    Without it, every tensor of more than 32 MiB is mapped anew, and the system zeroes each of its pages when
    it is written: at 800 px a good part of a GroupNorm's time on a CPU. The process keeps its peak of memory.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, _MOST_FREE)])
