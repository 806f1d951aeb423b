"""Weight files that MODEL.WEIGHTS names by URL: fetched once, and checked where a checksum is known."""

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from detectron2.utils.file_io import PathManager
from iopath.common.file_io import get_cache_dir

from ..errors import UserError, one_line
from ..files import sha256_of

_ZOO = "dl.fbaipublicfiles.com"  # behind detectron2:// and catalog://
_OPEN_TO_CHANGE = ("http", "ftp")  # whoever stands in between can change what comes
_FRAGMENT = re.compile(r"sha256=([0-9a-fA-F]{8,64})")
_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.pth$")  # as torchvision names its files


def fetch(url: str) -> str:
    """The file that the host's handlers keep of `url` in their cache, $FVCORE_CACHE."""
    parts = urlsplit(url)
    if parts.scheme in (*_OPEN_TO_CHANGE, "https") and parts.hostname != _ZOO:
        # The cache knows no hosts: any other could put its file where that of the zoo is looked for.
        return PathManager.get_local_path(url, cache_dir=os.path.join(get_cache_dir(), str(parts.hostname)))
    return PathManager.get_local_path(url)


def local_path(path: str, fetch: Callable[[str], str] = fetch) -> str:
    """The file on this machine that `path` names: itself, or what `fetch` brings where it is a URL.

    A URL may end in "#sha256=HEX", all 64 digits or the first 8 and more; file names such as
    resnet50-0676ba61.pth say it too. Raises `UserError` for a file that does not match, which is not kept,
    for a URL that cannot be fetched, and for one that anybody could answer (http) without a checksum.
    """
    if "://" not in path:
        return path
    url, _, fragment = path.partition("#")
    checksum = _checksum(path, url, fragment)
    _check_url(url, checksum)
    try:
        file = fetch(url)
        actual = sha256_of(file)
    except Exception as error:  # of any handler: no network, no such file, an unknown catalog entry
        reason = one_line(str(error)) or type(error).__name__
        raise UserError(f"Cannot fetch {url}: {reason}.") from None
    if not actual.startswith(checksum):
        _remove(file)
        raise UserError(f"{url} is not the file that was meant: its sha256 is {actual}, not {checksum}.")
    return file


def _checksum(path: str, url: str, fragment: str) -> str:
    """What the file's sha256 has to begin with; "" where nobody says."""
    if fragment:
        given = _FRAGMENT.fullmatch(fragment)
        if not given:
            raise UserError(f"{path}: what follows # is sha256= and 8 to 64 hexadecimal digits.")
        return given[1].lower()
    in_name = _IN_NAME.search(url.partition("?")[0])
    # Without a letter it is rather a date.
    return in_name[1] if in_name and not in_name[1].isdigit() else ""


def _check_url(url: str, checksum: str) -> None:
    if ".." in url.split("/"):
        raise UserError(f"{url}: with .. in it, it would be kept outside the folder of downloads.")
    if url.partition("://")[0].lower() in _OPEN_TO_CHANGE and not checksum:
        raise UserError(f"{url} is not encrypted. Use https, or write #sha256= and its checksum behind it.")


def _remove(file: str) -> None:
    if Path(file).resolve().is_relative_to(Path(get_cache_dir()).resolve()):  # not one of the user's own
        with contextlib.suppress(FileNotFoundError):  # another process was first
            os.remove(file)
