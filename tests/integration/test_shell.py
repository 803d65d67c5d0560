"""The interactive shell, driven through a real terminal."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.processes import Server, is_answered, rows, running, until
from tests.terminals import CTRL_C, CTRL_D, ENTER, TAB, UP, terminal

SLOW = "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = 3;"


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server("primary", "--data", str(tmp_path_factory.mktemp("shell") / "primary"))
    with running(server):
        rows(server.uri, "CREATE TABLE orders (id BIGINT PRIMARY KEY, customer VARCHAR)")
        rows(server.uri, "INSERT INTO orders VALUES (1, 'ann'), (2, 'bob' || chr(27) || '[2J')")
        yield server


def test_statements_answers_and_commands_at_a_terminal(primary: Server, tmp_path: Path) -> None:
    with terminal(tmp_path, "sql", primary.uri) as shell:
        shell.ready()
        shell.line("SELECT id, customer")
        shell.sees("...>")
        shell.line("FROM orders ORDER BY id;")
        shell.sees("(2 rows)")
        shell.sees("[orders at seq 2, lag 0.0 ms; ")
        assert any("bob\\x1b[2J" in line for line in shell.screen), "nothing in a value clears the screen"

        shell.ready()
        shell.line("SELECT nix FROM orders;")
        shell.sees("error: ")
        shell.ready()
        shell.line(".describe orders")
        shell.sees("key_place")
        shell.ready()
        shell.line(".tables")
        shell.sees("visible_seq")
        shell.ready()
        shell.line(".nix")
        shell.sees("error: there is no command .nix")
        shell.ready()
        shell.line(".timing off")
        shell.sees("timing off")
        shell.ready()
        shell.line(".format json")
        shell.sees("format json")
        shell.ready()
        shell.line("SELECT 7 AS seven; SELECT 8 AS eight;")
        shell.sees('[{"eight": 8}]')
        shell.ready()
        shell.line(f".output {tmp_path}/o.parquet")
        shell.sees("as json")
        shell.ready()
        shell.line(".format parquet")
        shell.ready()
        shell.line("SELECT * FROM orders;")
        shell.sees("[2 rows to ")
        assert pq.read_table(tmp_path / "o.parquet").num_rows == 2
        shell.ready()
        shell.line(".quit")
        assert shell.end() == 0
    assert b"\x1b[2J[" not in shell.raw


def test_ctrl_c_ends_the_statement_and_keeps_the_shell(tmp_path: Path) -> None:
    one_at_a_time = ("--limit", "queries_max=1", "--limit", "query_wait_seconds=0.01")
    server = Server("primary", "--data", str(tmp_path / "primary"), *one_at_a_time)
    is_idle = is_answered(server.uri, "SELECT 1", [(1,)])
    with running(server), terminal(tmp_path, "sql", server.uri) as shell:
        shell.ready()
        until(is_idle, "nothing runs yet")
        shell.line(SLOW)
        until(lambda: not is_idle(), "the statement runs")
        shell.type(CTRL_C)
        shell.sees("cancelled")
        shell.ready()
        until(is_idle, "it has ended at the server too")
        shell.type("SELECT half")
        shell.sees("SELECT half")
        shell.type(CTRL_C)
        shell.ready()
        shell.line("SELECT 40 + 2 AS answer;")
        shell.sees("(1 row)")  # 42 may be a part of the server's port
        assert "42" in shell.screen
        shell.ready()
        shell.type(CTRL_D)
        assert shell.end() == 0


def test_history_is_kept_without_secrets_for_the_user_alone(primary: Server, tmp_path: Path) -> None:
    with terminal(tmp_path, "sql", primary.uri) as shell:
        shell.ready()
        shell.line("SELECT 123 AS number;")
        shell.sees("(1 row)")
        shell.ready()
        shell.line("SELECT 'my password is x' AS nothing;")
        shell.sees("nothing")
        shell.ready()
        shell.type(CTRL_D)
        assert shell.end() == 0
    with terminal(tmp_path, "sql", primary.uri) as shell:
        shell.ready()
        shell.type(UP)
        shell.sees("SELECT 123 AS number;")
        shell.type(ENTER)
        shell.sees("(1 row)")
    history = tmp_path / "flight-replica" / "history"
    assert "password" not in history.read_text()
    assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_tables_columns_and_keywords_are_completed(primary: Server, tmp_path: Path) -> None:
    with terminal(tmp_path, "sql", primary.uri) as shell:
        shell.ready()
        shell.type("SELECT o.cust FROM orders o" + 14 * "\x02" + TAB)
        shell.sees("SELECT o.customer FROM orders o")
        shell.type("\x05\x15SELECT count(*) FROM ord" + TAB)
        shell.sees("SELECT count(*) FROM orders")
        shell.line(";")
        shell.sees("(1 row)")
        shell.ready()
        shell.type("DISTI" + TAB)
        shell.sees("DISTINCT")


@pytest.mark.long
def test_a_server_that_was_started_anew_is_used_on(tmp_path: Path) -> None:
    first = Server("primary", "--data", str(tmp_path / "data"))
    with running(first):
        rows(first.uri, "CREATE TABLE t (id BIGINT PRIMARY KEY)")
        with terminal(tmp_path, "sql", first.uri) as shell:
            shell.ready()
            first.kill()
            shell.ready()
            shell.line("SELECT 1 AS one;")
            shell.sees("error: ")
            second = Server("primary", "--data", str(tmp_path / "data"), listen=first.address)
            with running(second):
                shell.ready()
                shell.line("SELECT 2 AS two;")
                shell.sees("(1 row)")
                second.kill()
                third = Server("primary", "--data", str(tmp_path / "data"), listen=first.address)
                with running(third):
                    shell.ready()
                    shell.line("SELECT count(*) AS three FROM t;")
                    shell.sees("three")
                    shell.sees("t at seq 0")


def test_an_answer_that_is_longer_than_the_screen_is_paged(primary: Server, tmp_path: Path) -> None:
    with terminal(tmp_path, "sql", primary.uri, env={"PAGER": "less", "LESS": ""}) as shell:
        shell.ready()
        shell.line("SELECT range FROM range(500);")
        until(lambda: shell.screen[-1] == ":", "less waits for a key")
        assert not any("(500 rows)" in line for line in shell.screen)
        shell.type("G")
        shell.sees("(500 rows)")
        shell.type("q")
        shell.ready()
        shell.line(".quit")
        assert shell.end() == 0


@pytest.mark.parametrize("colour", [{}, {"NO_COLOR": "1"}], ids=["colour", "no colour"])
def test_no_color_is_honoured(primary: Server, tmp_path: Path, colour: dict[str, str]) -> None:
    with terminal(tmp_path, "verify", primary.uri, primary.uri, env=colour) as shown:
        assert shown.end(60) == 0
        assert any(line.startswith("orders: equal at seq 2") for line in shown.screen)
        has_colour = b"\x1b[3" in shown.raw
        assert not (colour and has_colour)


def test_binary_formats_are_refused_at_a_terminal(primary: Server, tmp_path: Path) -> None:
    with terminal(tmp_path, "sql", primary.uri, "SELECT 1", "--format", "parquet") as shown:
        assert shown.end() == 1
        shown.sees("--format parquet isn't for a terminal: say --output FILE")


def test_a_long_export_shows_how_far_it_is_and_nothing_of_it_stays(primary: Server, tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    statement = "SELECT range AS id FROM range(300000)"
    with terminal(tmp_path, "sql", primary.uri, statement, "--output", str(path)) as shown:
        assert shown.end(60) == 0
    assert b"writing" in shown.raw
    assert json.loads(path.read_text().splitlines()[-1]) == {"id": 299_999}
    assert shown.screen == []
