"""What the page offers to connect with works as it stands."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import httpx

from flight_replica.http.page.snippets import Address, snippets
from tests.integration.http.page.conftest import HOSTILE, PASSWORDS, Paged
from tests.processes import ROOT

PYTHON = ["adbc", "pandas", "polars", "duckdb"]


def code_of(client: httpx.Client, name: str) -> str:
    found = {snippet["id"]: snippet["code"] for snippet in client.get("/api/snippets").json()["snippets"]}
    return str(found[name])


def printed(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_snippet_for_python_reads_the_table(bob: httpx.Client) -> None:
    program = []
    for name in PYTHON:
        code = code_of(bob, name)
        assert '"orders"' in code
        assert "PASSWORD" in code
        code = code.replace('"USER"', '"bob"').replace('"PASSWORD"', repr(PASSWORDS["bob"]))
        program.append(f"print('>>>')\nexec({code!r}, {{}})")
    answers = printed("\n".join(program)).split(">>>")[1:]
    assert len(answers) == len(PYTHON)
    for name, answer in zip(PYTHON, answers, strict=True):
        assert ("2" if name == "duckdb" else HOSTILE) in answer, name


def test_a_snippet_needs_no_login_where_nobody_logs_in(client: httpx.Client, open_server: Paged) -> None:
    code = code_of(client, "adbc")
    assert f'"grpc://127.0.0.1:{open_server.flight.port}"' in code
    assert "password" not in code
    assert "item" in printed(code)


def test_the_command_line_reads_the_table(client: httpx.Client) -> None:
    code = code_of(client, "shell")
    command = code.replace("flight-replica", f"{sys.executable} -m flight_replica", 1)
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr


def test_an_odd_name_of_a_table_stays_a_name() -> None:
    for name in (HOSTILE, 'a"b', "it's", "a'; rm -rf /"):
        by_id = {snippet.id: snippet.code for snippet in snippets(Address("h", 1), name)}
        program = by_id["adbc"].splitlines()[2].removeprefix("sql = ")
        assert eval(program) == f'SELECT * FROM "{name.replace(chr(34), chr(34) * 2)}" LIMIT 10'


def test_addresses_say_how_to_connect() -> None:
    address = Address("10.0.0.7", 4711, is_tls=True, is_login_needed=True)
    by_id = {snippet.id: snippet.code for snippet in snippets(address, "t")}
    assert '"grpc+tls://10.0.0.7:4711"' in by_id["polars"]
    assert by_id["jdbc"] == (
        "jdbc:arrow-flight-sql://10.0.0.7:4711/?useEncryption=true&user=USER&password=PASSWORD"
    )
    assert "UseEncryption=true" in by_id["odbc"]
    assert "useEncryption=false" in snippets(replace(address, is_tls=False), "t")[4].code
    assert Address("::1", 1).uri == "grpc://[::1]:1"


def test_a_server_that_listens_everywhere_is_named_as_it_was_reached() -> None:
    assert Address("0.0.0.0", 7).seen_from("db.example").uri == "grpc://db.example:7"
    assert Address("10.0.0.7", 7).seen_from("db.example").uri == "grpc://10.0.0.7:7"
