"""The data directory of `justiam dev` is for its owner alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.dev.data_directory import DataDirectory
from cli.dev.program import DevStackError


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """The directory changes that of its process."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def for_others(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode) & 0o077


def test_what_others_may_read_is_taken_from_them(tmp_path: Path) -> None:
    path = tmp_path / "data"
    for directory in (path, path / "logs", path / "scripts"):
        directory.mkdir()
        directory.chmod(0o777)
    files = ["temporal.db", "temporal.db-wal", "temporal.db-shm", "secret.key", "users.json", "logs/api.log", "lock"]
    for name in files:
        (path / name).touch()
        (path / name).chmod(0o666)
    with DataDirectory(path) as opened:
        made = opened.describe_instance({})
        (path / "made later").touch()
        for each in (
            path,
            path / "logs",
            path / "scripts",
            made,
            path / "made later",
            *(path / name for name in files),
        ):
            assert for_others(each) == 0, each
            assert each.stat().st_mode & stat.S_IRUSR


def test_a_new_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "data"
    with DataDirectory(path):
        assert for_others(path) == for_others(path.parent) == 0


@pytest.mark.parametrize("name", [".", "temporal.db", "logs", "logs/api.log", "users.json"])
def test_what_belongs_to_another_user_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data"
    (path / "logs").mkdir(parents=True)
    if name != "logs":
        (path / name).touch()
    theirs, lstat = (path / name), Path.lstat

    def owned(each: Path) -> os.stat_result:
        found = lstat(each)
        values = list(found)
        values[stat.ST_UID] = 65_534 if each == theirs else os.geteuid()
        return os.stat_result(values)

    monkeypatch.setattr(Path, "lstat", owned)
    with pytest.raises(DevStackError, match=r"belongs to another user \(.+\).+--data-dir"), DataDirectory(path):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of others")
def test_a_link_that_another_user_planted_is_not_followed(tmp_path: Path) -> None:
    mine, path = tmp_path / "mine", tmp_path / "data"
    mine.touch(mode=0o644)
    path.mkdir()
    (path / "temporal.db").symlink_to(mine)
    os.lchown(path / "temporal.db", 65_534, 65_534)
    with pytest.raises(DevStackError, match="belongs to another user"), DataDirectory(path):
        pass
    assert for_others(mine) == 0o044


def test_a_directory_that_others_can_replace_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    path = tmp_path / "data"
    with pytest.raises(DevStackError, match=r"Every user may write to .+chmod o-w"), DataDirectory(path):
        pass
    # In a place such as /tmp, others may add files, and replace none.
    tmp_path.chmod(0o1777)
    with DataDirectory(path):
        pass


def test_a_file_system_without_permissions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o755)
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    with pytest.raises(DevStackError, match="does not let that be changed"), DataDirectory(tmp_path):
        pass
