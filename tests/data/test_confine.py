import os

import pytest

from rethink_pretrain.data.confine import FOLLOW_LINKS, Confinement, check_name, confined
from rethink_pretrain.errors import UserError

BAD_NAMES = [
    *("", "  ", None, 7, ["a.jpg"], b"a.jpg", "a\0.jpg", "a\n.jpg", "\x1b[31m.jpg", "\ud800.jpg"),
    *("/etc/passwd", "//host/share/a.jpg", "\\\\host\\share\\a.jpg", "C:\\a.jpg", "c:/a.jpg", "c:a.jpg"),
    *("..", "../a.jpg", "a/../../b.jpg", "a/..", "..\\a.jpg", "a\\b.jpg"),
    *("https://example.org/a.jpg", "s3://bucket/a.jpg", "detectron2://a.jpg", "catalog://x", "file:///etc/passwd"),
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES, ids=repr)
def test_names_that_lead_elsewhere_are_refused(name, tmp_path):
    for check in (check_name, lambda name: confined(tmp_path, name)):
        with pytest.raises(UserError, match=r"^the file name ") as error:
            check(name)
        assert str(error.value).isprintable() and len(str(error.value)) < 200


@pytest.mark.parametrize(
    "name", ["a.jpg", "train2017/a.jpg", "./a.jpg", "a..b/..c.jpg", "ä b'.jpg", "...", "~a.jpg"]
)
def test_names_below_the_folder_are_joined(name, tmp_path):
    check_name(name)
    assert confined(tmp_path, name) == tmp_path / name  # which need not exist
    assert confined(str(tmp_path), name) == tmp_path / name


@pytest.fixture
def folders(tmp_path):
    """images/ with sub/a.jpg, and outside/ with secret.jpg."""
    for file in ("images/sub/a.jpg", "outside/secret.jpg", "images2/b.jpg"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    ("link", "target", "name"),
    [
        ("images/link.jpg", "../outside/secret.jpg", "link.jpg"),
        ("images/folder", "../outside", "folder/secret.jpg"),
        ("images/sub/deep", "../../outside", "sub/deep/secret.jpg"),
        ("images/twin", "../images2", "twin/b.jpg"),  # whose name begins as that of the folder
        ("images/gone.jpg", "../outside/gone.jpg", "gone.jpg"),  # nothing there yet
        ("images/absolute.jpg", "/etc/hostname", "absolute.jpg"),
    ],
)
def test_links_out_are_refused_unless_the_user_allows_them(folders, monkeypatch, link, target, name):
    (folders / link).symlink_to(target)
    with pytest.raises(UserError, match=f"through a link out of the folder .*{FOLLOW_LINKS}=1"):
        confined(folders / "images", name)
    monkeypatch.setenv(FOLLOW_LINKS, "1")
    assert confined(folders / "images", name) == folders / "images" / name
    with pytest.raises(UserError, match="leads out"):
        confined(folders / "images", "../outside/secret.jpg")


def test_links_inside_and_a_root_that_is_a_link_are_fine(folders):
    (folders / "images/b.jpg").symlink_to("sub/a.jpg")
    (folders / "images/sub2").symlink_to("sub")
    (folders / "root").symlink_to("images")
    for root in ("images", "root"):
        for name in ("b.jpg", "sub2/a.jpg", "sub/a.jpg"):
            assert confined(folders / root, name).read_bytes() == b"x"


def test_a_chain_of_links_counts_by_its_end(folders):
    (folders / "images/1.jpg").symlink_to("2.jpg")
    (folders / "images/2.jpg").symlink_to("../outside/secret.jpg")
    (folders / "images/loop.jpg").symlink_to("loop.jpg")
    with pytest.raises(UserError):
        confined(folders / "images", "1.jpg")
    confined(folders / "images", "loop.jpg")  # leads nowhere: a missing file


def test_relative_roots_and_the_root_of_the_system(folders, monkeypatch):
    monkeypatch.chdir(folders / "images")
    for root in (".", ""):
        assert os.fspath(confined(root, "sub/a.jpg")) == "sub/a.jpg"
    Confinement("/").check("etc/hostname")
