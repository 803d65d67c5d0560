"""Servers that are configured by a file, by variables and by flags; the command `config`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flight_replica.cli import main
from tests.processes import Process, Server, is_answered, rows, running, until


def test_servers_start_by_their_files_with_paths_relative_to_them(tmp_path: Path) -> None:
    (tmp_path / "primary.toml").write_text(
        'data = "here"\nmemory_limit = "1GB"\n[retention]\nseconds = "2h"\n'
    )
    primary = Server("primary", "--config", str(tmp_path / "primary.toml"))
    with running(primary):
        assert (tmp_path / "here").is_dir()
        rows(primary.uri, "CREATE TABLE t (id BIGINT PRIMARY KEY, b BLOB)")
        rows(primary.uri, "INSERT INTO t VALUES (1, 'abc'::BLOB)")
        (tmp_path / "replica.toml").write_text(
            f'[primary]\nuri = "{primary.uri}"\n[tables.t]\ntext = ["b"]\n[limits]\nresult_bytes_max = 10\n'
        )
        replica = Server(
            "serve",
            env={
                "FLIGHT_REPLICA_CONFIG": str(tmp_path / "replica.toml"),
                "FLIGHT_REPLICA_LIMITS_RESULT_BYTES_MAX": "1MiB",
            },
        )
        with running(replica):
            until(is_answered(replica.uri, "SELECT * FROM t", [(1, "abc")]), "the replica is up")


def test_a_server_does_not_start_with_a_wrong_file_and_says_all_of_it(tmp_path: Path) -> None:
    path = tmp_path / "replica.toml"
    path.write_text('memory_limit = "4 gigs"\n[limit]\npins_max = 3\n[log]\nlevel = "info"\n')
    process = Process("flight_replica", "serve", "--config", str(path))
    with running(process):
        assert process.wait(60) == 1
        assert list(process.lines()) == []
        assert process.errors == [
            f"flight-replica: {path}: give either primary.uri, or one tables.NAME.base or more",
            f'flight-replica: {path}:1: memory_limit: expected a size such as "4GB" or "500MiB", '
            'found "4 gigs"',
            f"flight-replica: {path}:2: limit: there is no such setting; did you mean limits?",
        ]


def test_a_file_that_is_right_is_said_to_be_and_for_what(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.toml"
    for text, command in (
        ('primary.uri = "grpc://h:1"\n', "serve"),
        ('data = "d"\nretention.ops = 5\n', "primary"),
        ('[tables.t]\ncatalog = "c"\nwal = "w"\n', "feed"),
    ):
        path.write_text(text)
        assert main(["config", "check", str(path)]) == 0
        assert capsys.readouterr().out == f"{path}: right for {command}\n"
    assert main(["config", "check", str(path), "--for", "serve"]) == 1
    assert "tables.t.catalog: there is no such setting of serve; feed has one" in capsys.readouterr().err


def test_what_is_in_effect_is_shown_with_the_source_of_each_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.toml"
    path.write_text('[primary]\nuri = "grpc://h:1"\nuser = "me"\n[tables."a b"]\ntext = ["c", "d?"]\n')
    monkeypatch.setenv("FLIGHT_REPLICA_PRIMARY_PASSWORD", "very secret")
    monkeypatch.setenv("FLIGHT_REPLICA_LIMITS_PINS_MAX", "5")
    arguments = ["config", "show", str(path), "--for", "serve"]
    assert main([*arguments, "--", "--listen", "127.0.0.1:7", "--limit", "statement_seconds=2m"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0] == 'listen = "127.0.0.1:7"  # --listen'
    for line in (
        "limits.statement_seconds = 120  # --limit",
        "limits.pins_max = 5  # FLIGHT_REPLICA_LIMITS_PINS_MAX",
        "limits.waits_max = 256  # default",
        f'primary.uri = "grpc://h:1"  # {path}:2',
        'primary.password = "***"  # FLIGHT_REPLICA_PRIMARY_PASSWORD',
        f'tables."a b".text = "c,d?"  # {path}:5',
        "# data is not set",
    ):
        assert line in text.splitlines()
    assert main([*arguments, "--json"]) == 0
    told = capsys.readouterr().out
    shown = json.loads(told)
    assert shown["command"] == "serve"
    assert shown["settings"]["primary.user"] == {"value": "me", "source": f"{path}:3"}
    assert shown["settings"]["listen"] == {"value": "127.0.0.1:0", "source": "default"}
    assert "secret" not in text.replace("jwt_secret", "") + told.replace("jwt_secret", "")


@pytest.mark.parametrize("command", ["serve", "primary", "feed"])
def test_an_example_is_printed_and_is_right_where_nothing_has_to_be_said(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "example", "--for", command]) == 0
    path = tmp_path / "x.toml"
    path.write_text(capsys.readouterr().out)
    code = main(["config", "check", str(path), "--for", command])
    assert (code, "give one tables.NAME.catalog" in capsys.readouterr().err) == (
        (1, True) if command == "feed" else (0, False)
    )
