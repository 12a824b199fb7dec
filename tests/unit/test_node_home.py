"""Whose directory a node's cache is: nothing is run from where others can write."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from clusterkit.node import home
from clusterkit.node.errors import NodeError

UID = os.geteuid()


def test_a_user_has_a_directory_of_their_own(tmp_path):
    """The user's part is made with mode 0700, in a cache that others may share when root made it."""
    own = Path(home.of(str(tmp_path / "cache")))
    assert own == tmp_path / "cache" / str(UID)
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert stat.S_IMODE(own.parent.stat().st_mode) == (0o1777 if UID == 0 else 0o755)


def test_a_sticky_directory_above_is_fine(tmp_path):
    """A directory that all can write to, as /var/tmp is, is fine where the sticky bit protects what is in it."""
    above = tmp_path / "tmp"
    above.mkdir()
    above.chmod(0o1777)
    assert home.of(str(above / "cache")) == str(above / "cache" / str(UID))


def test_links_above_are_resolved(tmp_path):
    """A link above the cache, of this user's or root's, gives way to where it leads: the prefix has no links."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert home.of(str(tmp_path / "link" / "cache")) == str(tmp_path / "real" / "cache" / str(UID))


def writable_by_all(path):
    path.mkdir()
    path.chmod(0o777)


def a_link(path):
    path.with_name("elsewhere").mkdir(exist_ok=True)
    path.symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("prepare_place", "place", "why"),
    [
        (writable_by_all, "cache", "others can write to it, and it has no sticky bit (mode 777)"),
        (a_link, "cache", "it is a link or a file, and no directory"),
        (Path.touch, "cache", "it is a link or a file, and no directory"),
        (a_link, f"cache/{UID}", "it is a link or a file, and no directory"),
        (writable_by_all, f"cache/{UID}", "others can write to it (mode 777)"),
        (writable_by_all, ".", "others can write to it, and it has no sticky bit (mode 777)"),
    ],
)
def test_a_cache_that_cannot_be_trusted_is_refused(tmp_path, prepare_place, place, why):
    """What others can write to, or have put there, is not used: programs are run from it."""
    above = tmp_path / "above"
    if place != ".":
        above.mkdir()
        if "/" in place:
            (above / "cache").mkdir()
    prepare_place(above / place)
    with pytest.raises(NodeError) as caught:
        home.of(str(above / "cache"))
    assert caught.value.why == why
    assert "node_cache" in caught.value.mend


def test_another_users_directory_is_refused(tmp_path, monkeypatch):
    """A directory of the right name that another user owns is refused, whatever its mode."""
    own = Path(home.of(str(tmp_path / "cache")))
    own.rename(own.with_name(str(UID + 1)))
    (own.parent).chmod(0o1777)
    true_lstat = os.lstat

    def lstat(path):
        found = true_lstat(path)
        if str(path) == str(own.with_name(str(UID + 1))) or not str(path).startswith(str(tmp_path)):
            return found if str(path).startswith(str(tmp_path)) else os.stat_result([*found[:4], 0, *found[5:]])
        return os.stat_result([*found[:4], 0, *found[5:]])  # root made what is above

    monkeypatch.setattr(os, "lstat", lstat)
    monkeypatch.setattr(os, "geteuid", lambda: UID + 1)
    with pytest.raises(NodeError) as caught:
        home.of(str(tmp_path / "cache"))
    assert caught.value.why == f"it belongs to the user {UID}, and this is {UID + 1}"


def test_a_cache_that_cannot_be_made_is_refused(tmp_path):
    """A missing directory above is named."""
    with pytest.raises(NodeError) as caught:
        home.of(str(tmp_path / "no" / "cache"))
    assert caught.value.why == f"{tmp_path}/no: No such file or directory"
