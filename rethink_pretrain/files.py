"""Writing files so that they hold either the whole new content or what they held before."""

import json
import os
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8)."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Replace `path` by `content` as JSON; `indent` None is the compact form."""
    write_text(path, json.dumps(content, indent=indent) + "\n")
