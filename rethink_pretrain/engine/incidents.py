"""What went wrong in a run, one line of JSON for each case, in OUTPUT_DIR/incidents.jsonl."""

import json
import logging
import math
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

FILE_NAME = "incidents.jsonl"


def record_incident(output_dir: str | Path, **fields: Any) -> None:
    """Append a line with the time (UTC) and `fields`, plain values before lists and objects.

    NaN and infinities become strings, for JSON has none. Several processes may append; an empty line may
    come between theirs. A disk that is full or read-only costs the line and a warning, not the run.
    """
    line = {"time": datetime.now(timezone.utc).isoformat(timespec="seconds"), **_plain(fields)}
    ordered = dict(sorted(line.items(), key=lambda item: isinstance(item[1], (dict, list))))
    path = Path(output_dir) / FILE_NAME
    try:
        _append(path, json.dumps(ordered, allow_nan=False, default=str).encode() + b"\n")
    except OSError as error:
        logger.warning("Cannot write to %s: %s. Lost: %s", path, error.strerror, fields)


def _append(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":  # a line that a kill or a full disk cut off
            line = b"\n" + line
        os.write(descriptor, line)  # one call, so that lines of several processes do not mix
    finally:
        os.close(descriptor)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(child) for child in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
