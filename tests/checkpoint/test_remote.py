"""Weights by URL: what is fetched, what is checked, what is thrown away. Without a network."""

import hashlib

import pytest
from detectron2.utils.file_io import PathManager

from rethink_pretrain.checkpoint import remote
from rethink_pretrain.checkpoint.remote import local_path
from rethink_pretrain.errors import UserError
from rethink_pretrain.files import sha256_of

CONTENT = b"the weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def fetch(cache):
    """A fetch that notes what it is asked for, and brings CONTENT."""

    def fetch(url: str) -> str:
        fetch.urls.append(url)
        path = cache / "fetched"
        path.write_bytes(CONTENT)
        return str(path)

    fetch.urls = []
    return fetch


def refusal(path: str, fetch) -> str:
    with pytest.raises(UserError) as info:
        local_path(path, fetch)
    assert "\n" not in str(info.value)
    return str(info.value)


@pytest.mark.parametrize("path", ["a.pth", "/a/b.pkl", "C:\\a.pth", "", "a#b.pth", "https:/a.pth"])
def test_a_path_is_itself_and_nothing_is_fetched(fetch, path):
    assert local_path(path, fetch) == path
    assert fetch.urls == []


@pytest.mark.parametrize("scheme", ["https", "detectron2", "catalog"])
@pytest.mark.parametrize("end", ["", f"#sha256={SHA256}", f"#sha256={SHA256[:8].upper()}"])
def test_fetched_without_what_stands_behind_the_hash(fetch, cache, scheme, end):
    assert local_path(f"{scheme}://host/a.pkl{end}", fetch) == str(cache / "fetched")
    assert fetch.urls == [f"{scheme}://host/a.pkl"]


@pytest.mark.parametrize("end", [f"-{SHA256[:8]}.pth", f"-{SHA256}.pth", f"-{SHA256[:8]}.pth?download=1"])
def test_a_checksum_in_the_name_that_fits(fetch, end):
    assert local_path(f"https://host/resnet50{end}", fetch)


@pytest.mark.parametrize(
    "end",
    [
        "a.pth#sha256=" + "0" * 64,
        f"a.pth#sha256={SHA256[:-1]}{'0' if SHA256[-1] != '0' else '1'}",
        "resnet50-0676ba61.pth",
        # What is said behind the hash counts, not the name.
        f"r-{SHA256[:8]}.pth#sha256=00000000",
    ],
)
def test_a_checksum_that_does_not_fit(fetch, cache, end):
    message = refusal(f"https://host/{end}", fetch)
    assert "is not the file that was meant" in message and SHA256 in message
    assert not (cache / "fetched").exists()


def test_a_file_of_the_user_is_not_deleted(cache, tmp_path):
    """Handlers of the host's PathManager may name a file where it is, not a copy."""
    path = tmp_path / "mine.pth"
    path.write_bytes(CONTENT)
    refusal("mounted://b/a-0676ba61.pth", lambda url: str(path))
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("name", ["model-20171220.pth", "R-50.pkl", "model_721ade.pkl", "a-0676ba6.pth"])
def test_names_that_say_no_checksum(fetch, name):
    assert local_path(f"https://host/{name}", fetch)


@pytest.mark.parametrize("scheme", ["http", "ftp", "HTTP"])
def test_unencrypted_only_with_a_checksum(fetch, scheme):
    assert "is not encrypted" in refusal(f"{scheme}://host/a.pth", fetch)
    assert fetch.urls == []
    assert local_path(f"{scheme}://host/a.pth#sha256={SHA256[:16]}", fetch)


@pytest.mark.parametrize("end", ["#", "#sha256=", "#sha256=0123456", "#sha256=xyzxyzxyz", "#md5=0123456789"])
def test_a_checksum_that_is_none(fetch, end):
    if end == "#":
        assert local_path("https://host/a.pth#", fetch)
        return
    assert "is sha256= and 8 to 64 hexadecimal digits" in refusal(f"https://host/a.pth{end}", fetch)
    assert fetch.urls == []


@pytest.mark.parametrize(
    "url", ["https://host/../../.bashrc", "detectron2://../../x.pkl", "https://../x", "https://host/a/../b"]
)
def test_a_path_out_of_the_cache(fetch, url):
    """The host's cache repeats the path of a URL below its folder."""
    assert "outside the folder of downloads" in refusal(url, fetch)
    assert fetch.urls == []


@pytest.mark.parametrize("error", [OSError("404: Not Found"), RuntimeError("two\nlines"), KeyError()])
def test_what_cannot_be_fetched(error):
    def fetch(url):
        raise error

    assert refusal("https://host/a.pth", fetch).startswith("Cannot fetch https://host/a.pth: ")


@pytest.mark.parametrize("url", ["nothing://host/a.pth", "https://[/a.pth", "catalog://none"])
def test_a_url_that_nobody_knows(cache, url):
    assert refusal(url, remote.fetch).startswith(f"Cannot fetch {url}: ")


def test_hosts_do_not_share_the_cache_of_the_zoo(cache, monkeypatch):
    """Or any URL could put its file where the host looks for detectron2://ImageNetPretrained/..."""
    asked = []
    monkeypatch.setattr(PathManager, "get_local_path", lambda url, **kwargs: asked.append((url, kwargs)))
    remote.fetch("https://evil.example:81/detectron2/R-50.pkl")
    remote.fetch("https://dl.fbaipublicfiles.com/detectron2/R-50.pkl")
    remote.fetch("detectron2://R-50.pkl")
    assert [kwargs for _, kwargs in asked] == [{"cache_dir": str(cache / "evil.example")}, {}, {}]


def test_the_hosts_handler_takes_the_cache_folder(cache, monkeypatch):
    """Through its own code, with a download that needs no network."""
    from iopath.common import file_io

    def download(url, folder, *, filename):
        path = f"{folder}/{filename}"
        with open(path, "wb") as file:
            file.write(CONTENT)
        return path

    monkeypatch.setattr(file_io, "download", download)
    url = f"https://host.example/some/a-{SHA256[:8]}.pth"
    assert local_path(url) == str(cache / "host.example" / "some" / f"a-{SHA256[:8]}.pth")


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(CONTENT * 300_000)  # more than a block
    assert sha256_of(str(tmp_path / "a")) == hashlib.sha256(CONTENT * 300_000).hexdigest()
