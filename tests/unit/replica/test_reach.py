"""Which published places this host can read, and which failures mean that it can't."""

from __future__ import annotations

from pathlib import Path

import pytest

from flight_replica.errors import BaseError, BaseNotUsable, ConfigError
from flight_replica.replica.reach import why_denied, why_out_of_reach


def test_what_is_here_is_in_reach(tmp_path: Path) -> None:
    metadata = tmp_path / "a b" / "v1.metadata.json"
    metadata.parent.mkdir()
    metadata.write_text("{")
    for uri in (str(metadata), metadata.as_uri(), f"file://{metadata}", f"file://localhost{metadata}"):
        assert why_out_of_reach("iceberg", uri) == ""
    assert why_out_of_reach("merutable", metadata.parent.as_uri()) == ""


def test_a_metadata_file_that_is_gone_from_its_folder_is_no_reason(tmp_path: Path) -> None:
    assert why_out_of_reach("iceberg", str(tmp_path / "v1.metadata.json")) == ""


@pytest.mark.parametrize(
    ("kind", "uri", "reason"),
    [
        ("iceberg", "/nowhere/metadata/v1.metadata.json", "/nowhere/metadata isn't on this host"),
        ("iceberg", "file:///nowhere/metadata/v1.metadata.json", "/nowhere/metadata isn't on this host"),
        ("merutable", "/nowhere/catalog", "/nowhere/catalog isn't on this host"),
        ("merutable", "file://far/data/catalog", "file://far/data/catalog is on host far"),
        ("delta", "/data", "bases of kind 'delta' aren't read here"),
    ],
)
def test_each_reason_is_said(kind: str, uri: str, reason: str) -> None:
    assert why_out_of_reach(kind, uri) == reason


def test_an_object_store_is_to_be_tried() -> None:
    assert why_out_of_reach("merutable", "s3://bucket/t") == ""


def test_a_failure_counts_where_rights_or_the_way_to_a_store_are_at_fault() -> None:
    def caused(error: BaseError | ConfigError, cause: Exception) -> BaseError | ConfigError:
        error.__cause__ = cause
        return error

    assert why_denied(caused(BaseError("not mine"), PermissionError("no")), "/data") == "not mine"
    assert why_denied(caused(BaseNotUsable("gone"), FileNotFoundError("no")), "/data") == ""
    assert why_denied(caused(BaseError("damaged"), ValueError("no")), "/data") == ""
    assert why_denied(caused(BaseNotUsable("no answer"), OSError("no")), "s3://b/t") == "no answer"
    assert why_denied(ConfigError("no such store"), "nix://b/t") == "no such store"
    assert why_denied(BaseError("damaged"), "s3://b/t") == ""
