"""Who may import whom (docs/architecture.md). Imports for type checking count too: they are knowledge."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "flight_replica"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if "_pb" not in path.parts)

# part of the package -> parts it may import, besides itself and what everybody may
COMMON = {"errors", "arrow_types", "schema", "conform", "keys", "text_columns", "position", "_pb"}
ARROWS: dict[str, set[str]] = {
    "errors": set(),
    "position": set(),
    "arrow_types": set(),
    "schema": set(),
    "conform": set(),
    "keys": set(),
    "text_columns": set(),
    "digest": {"xxh3"},
    "xxh3": set(),
    "arrow_alone": set(),
    "folder_lock": set(),
    "tracing": {"logs", "flightsql.observing", "replica.measures"},
    "logs": {"flightsql.observing", "sql.literals"},
    "sql": set(),
    "log": set(),
    "base": {"log", "digest"},
    "state": {"log", "base", "sql", "folder_lock"},
    "replica": {"state", "log", "base", "sql", "flightsql.service", "control.steering", "distribution"},
    "flightsql": {"sql", "log", "digest", "logs.request"},
    "primary": {"log", "base", "sql", "flightsql.service", "folder_lock"},
    "beside": {"state", "log", "base", "replica", "flightsql.service"},
    "control": {"flightsql", "logs.setup"},
    "admin": {"control", "flightsql", "log", "logs.request"},
    "operating": {"admin", "client", "connecting", "log"},
    "admin_port": {"access", "admin", "config", "control", "reloading"},
    "http": {"flightsql", "sql", "metrics", "control", "logs"},
    "metrics": {"flightsql", "replica.measures", "sql.memory", "distribution"},
    "distribution": set(),
    "client": {"text_table"},
    "demo_orders": set(),
    "demo_writer": {"client", "demo_orders"},
    "stopping": set(),
    "systemd": set(),
    "demo": {"client", "demo_orders", "stopping"},
    "config": {"flightsql.limits", "logs.query_text", "logs.setup"},
    "access": {"config", "flightsql"},
    "connecting": {"arrow_alone", "config", "flightsql", "log"},
    "user_command": {"flightsql"},
    "completion_command": set(),
    "progress": set(),
    "text_table": set(),
    "shell": {"client", "progress", "text_table"},
    "sql_command": {"client", "connecting", "progress", "shell"},
    "verify": {"base", "log", "digest"},
    "verify_command": {"text_table", "connecting", "log", "progress", "table_options", "verify"},
    "http_port": {"access", "config", "control", "flightsql", "http", "listening", "metrics", "reloading"},
    "listening": {
        "access",
        "admin_port",
        "config",
        "control",
        "flightsql",
        "http_port",
        "logs",
        "metrics",
        "reloading",
        "replica.service",
        "stopping",
        "systemd",
        "tracing",
    },
    "reloading": {"access", "config", "flightsql", "logs.setup"},
    "table_options": set(),
    "serve_command": {
        "access",
        "arrow_alone",
        "config",
        "connecting",
        "listening",
        "replica",
        "state",
        "stopping",
        "table_options",
    },
    "feed_command": {
        "access",
        "arrow_alone",
        "beside",
        "config",
        "listening",
        "replica",
        "state",
        "stopping",
        "table_options",
    },
    "config_command": {"config"},
    "cli": {
        "access",
        "arrow_alone",
        "config",
        "config_command",
        "feed_command",
        "listening",
        "logs",
        "serve_command",
        "table_options",
        "connecting",
        "user_command",
        "operating",
        "completion_command",
        "sql_command",
        "verify_command",
        "primary",
        "replica",
        "flightsql",
        "log",
        "base",
        "state",
        "client",
        "demo",
        "demo_writer",
        "stopping",
    },
    "__main__": {"cli"},
    "library": {"flightsql", "log", "replica", "state"},
    "__init__": {"library"},
}

# library -> where it may be known
KNOWN_BY = {
    "pyarrow.flight": {"flightsql", "log.change_feed", "log.feed_client", "log.feed_reader"},
    "pyiceberg": {
        "base.iceberg*",
        "primary.mirror*",
        "primary.position_deletes",
    },
    "duckdb": {"sql", "state", "primary", "library.result", "text_table"},
    "starlette": {"http"},
    "uvicorn": {"http"},
    "prometheus_client": {"metrics"},
    "watchdog": {"beside.log_watch"},
    "grpc": {"admin"},
    "grpc_health": {"admin"},
    "grpc_reflection": {"admin"},
    "opentelemetry": {"tracing"},
    "adbc_driver_flightsql": {"client"},
    "adbc_driver_manager": {"client"},
    "rich": {"progress"},
    "shtab": {"completion_command"},
    "prompt_toolkit": {"shell"},
}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def _is_in(name: str, places: set[str]) -> bool:
    return any(
        name == place or name.startswith(f"{place}.") or (place.endswith("*") and name.startswith(place[:-1]))
        for place in places
    )


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_a_module_imports_only_what_its_part_may(path: Path) -> None:
    name = _name(path)
    part = name.split(".")[0]
    allowed = ARROWS[part] | COMMON | {part}
    ours = {
        found.removeprefix("flight_replica.")
        for found in _imports(path)
        if found.startswith("flight_replica.")
    }
    assert not {found for found in ours if not _is_in(found, allowed)}, f"{name} may import {sorted(allowed)}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_a_library_is_known_only_where_it_belongs(path: Path) -> None:
    name = _name(path)
    for library, places in KNOWN_BY.items():
        if any(_is_in(found, {library}) for found in _imports(path)):
            assert _is_in(name, places), f"{name} imports {library}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_all_names_only_what_is_there(path: Path) -> None:
    tree = ast.parse(path.read_text())
    stated = [
        ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign) and _is_all(node)
    ]
    defined = {name for node in tree.body for name in _defined(node)}
    assert {name for names in stated for name in names} <= defined


def _is_all(node: ast.Assign) -> bool:
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))
    elif isinstance(node, ast.If):  # what is loaded when it is first used
        for inner in node.body:
            yield from _defined(inner)
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id
