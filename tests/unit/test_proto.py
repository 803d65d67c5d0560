"""The generated code is what `make proto` makes of proto/."""

from __future__ import annotations

from pathlib import Path

import pytest
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "proto").glob("*.proto"))
GENERATED = ROOT / "flight_replica" / "_pb"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_generated_code_is_not_stale(source: Path, tmp_path: Path) -> None:
    arguments = [
        "protoc",
        f"-I{ROOT / 'proto'}",
        f"-I{_well_known()}",
        f"--python_out={tmp_path}",
        str(source),
    ]
    assert protoc.main(arguments) == 0
    name = f"{source.stem}_pb2.py"
    assert (GENERATED / name).read_text() == (tmp_path / name).read_text(), "run `make proto`"


def test_every_generated_module_has_its_source() -> None:
    modules = {path.name for path in GENERATED.glob("*_pb2.py")}
    assert modules == {f"{source.stem}_pb2.py" for source in SOURCES}


def _well_known() -> Path:
    return Path(protoc.__file__).parent / "_proto"
