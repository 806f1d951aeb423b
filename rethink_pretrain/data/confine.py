"""File names of annotations may only lead to files below the folder of the images."""

import os
import re
from pathlib import Path
from typing import Any

from ..errors import UserError
from .quote import is_text, quoted

FOLLOW_LINKS = "RETHINK_FOLLOW_LINKS"  # environment variable; "1" allows links that lead out of the folder

_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def check_name(name: Any) -> None:
    """Raises `UserError` unless `name` is that of a file below some folder, whatever the system."""
    problem = _problem_of_name(name)
    if problem:
        raise UserError(f"the file name {quoted(name)} {problem}")


def _problem_of_name(name: Any) -> str:
    if not is_text(name) or not name.strip():
        return "is not a text"
    if _CONTROL.search(name):
        return "has control characters"
    if "://" in name:
        return "is an address: files are not fetched"
    if name.startswith("/") or _DRIVE.match(name):
        return "is absolute: names go from the folder of the images"
    if "\\" in name:
        return "has a backslash: folders are divided by /"
    if ".." in name.split("/"):
        return "leads out of the folder of the images"
    return ""


class Confinement:
    """The files below one folder, which may itself be a link; what links say is remembered per folder."""

    def __init__(self, root: str | Path):
        """`root` need not exist."""
        self._root = os.fspath(root)
        self._inside = os.path.join(os.path.realpath(root), "")  # what paths below the folder begin with
        self._folders_inside: dict[str, bool] = {}
        self._follow_links = os.environ.get(FOLLOW_LINKS) == "1"

    def path(self, name: Any) -> Path:
        """The path of `name`. Raises `UserError` where it leads out; a file that is missing is no error."""
        self.check(name)
        return Path(self._root, name)

    def check(self, name: Any) -> None:
        """Raises `UserError` where `name` leads out of the folder, by itself or through a link."""
        check_name(name)
        if self._follow_links:
            return
        path = os.path.join(self._root, name)
        folder = os.path.dirname(path)
        inside = self._folders_inside.get(folder)
        if inside is None:
            inside = self._folders_inside[folder] = self._is_inside(folder)
        if not inside or (os.path.islink(path) and not self._is_inside(path)):
            raise UserError(
                f"the file name {quoted(name)} leads through a link out of the folder of the images; "
                f"{FOLLOW_LINKS}=1 in the environment allows that"
            )

    def _is_inside(self, path: str) -> bool:
        return os.path.join(os.path.realpath(path), "").startswith(self._inside)


def confined(root: str | Path, name: Any) -> Path:
    """The path of the file `name` below `root`. Raises `UserError` where it leads out of it."""
    return Confinement(root).path(name)
