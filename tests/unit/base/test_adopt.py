"""Taking over a base file by link or copy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flight_replica.base.adopt import link_or_copy
from flight_replica.errors import BaseError, BaseNotUsable


def file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_adopted_file_is_a_link_that_outlives_its_source(tmp_path: Path) -> None:
    source = file(tmp_path / "a", "one")
    target = link_or_copy(source, tmp_path / "own" / "a")
    assert target.samefile(source)
    source.unlink()
    assert target.read_text() == "one"


def test_where_links_cannot_be_made_the_file_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    source = file(tmp_path / "a", "one")
    target = link_or_copy(source, tmp_path / "b")
    assert target.read_text() == "one"
    assert not target.samefile(source)


def test_older_link_of_the_same_name_is_replaced_and_its_owner_keeps_the_file(tmp_path: Path) -> None:
    old, new = file(tmp_path / "old", "old"), file(tmp_path / "new", "new")
    link_or_copy(old, tmp_path / "t")
    assert link_or_copy(new, tmp_path / "t").read_text() == "new"
    assert old.read_text() == "old"


def test_adopting_a_file_twice_keeps_it(tmp_path: Path) -> None:
    source = file(tmp_path / "a", "one")
    target = link_or_copy(source, tmp_path / "t")
    assert link_or_copy(target, target).read_text() == "one"
    assert link_or_copy(source, target).read_text() == "one"


def test_source_that_is_gone_may_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(BaseNotUsable, match="gone is gone"):
        link_or_copy(tmp_path / "gone", tmp_path / "t")


def test_target_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    with pytest.raises(BaseError, match="can't be taken over as"):
        link_or_copy(file(tmp_path / "a", "one"), tmp_path / "t")
