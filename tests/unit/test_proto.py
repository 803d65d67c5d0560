"""The generated code is what `make proto` makes of proto/."""

from __future__ import annotations

from pathlib import Path

import pytest
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
SERVICE = ROOT / "proto" / "admin.proto"
SOURCES = sorted(path for path in (ROOT / "proto").glob("*.proto") if path != SERVICE)
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


def test_generated_services_are_not_stale(tmp_path: Path) -> None:
    """Stubs import their messages by the package's name, so their source is seen there."""
    arguments = [
        "protoc",
        f"-I{GENERATED.relative_to(ROOT)}={ROOT / 'proto'}",
        f"--python_out={tmp_path}",
        f"--grpc_python_out={tmp_path}",
        str(SERVICE),
    ]
    assert protoc.main(arguments) == 0
    for name in (f"{SERVICE.stem}_pb2.py", f"{SERVICE.stem}_pb2_grpc.py"):
        made = tmp_path / GENERATED.relative_to(ROOT) / name
        assert (GENERATED / name).read_text() == made.read_text(), "run `make proto`"


def test_every_generated_module_has_its_source() -> None:
    modules = {path.name for path in GENERATED.glob("*_pb2.py")}
    assert modules == {f"{source.stem}_pb2.py" for source in (*SOURCES, SERVICE)}


def _well_known() -> Path:
    return Path(protoc.__file__).parent / "_proto"
