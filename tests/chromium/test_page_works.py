"""The page in Chromium, of a replica whose primary is written to."""

from __future__ import annotations

import os
import re
import signal
import threading

import pytest

from tests.chromium.browsing import expect
from tests.chromium.conftest import IMAGE, IMAGE_WANTED, Paged, Show, Shown
from tests.chromium.writing import written
from tests.processes import Server, rows, running, until

ENDLESS = (
    "SELECT sum(a.range * b.range) FROM range(10000000) a, range(10000000) b "
    "WHERE a.range % 7 <> b.range % 11"
)
OUTER_MS = 60_000  # generous: what is waited for comes within a second or two

Pair = tuple[Server, Paged]


def loaded(shown: Shown) -> Shown:
    """The page, once it shows tables that are well."""
    shown.open()
    expect(shown.page.locator("#verdict-text")).to_have_text("All well: 3 tables", timeout=OUTER_MS)
    return shown


def choose(shown: Shown, table: str) -> None:
    shown.page.get_by_role("button", name=table, exact=True).click()
    expect(shown.page.locator("#detail-name")).to_have_text(table)


def run(shown: Shown, sql: str) -> None:
    shown.page.get_by_label("Statement").fill(sql)
    shown.page.get_by_role("button", name="Run").click()


def test_it_loads_without_an_error_and_asks_no_other_host(pair: Pair, show: Show) -> None:
    shown = loaded(show(pair[1].page))
    expect(shown.page.locator("#live")).to_have_text("live")
    expect(shown.page.locator("#address")).to_have_text(pair[1].uri)
    expect(shown.page.locator("#table-rows tr")).to_have_count(3)
    assert (shown.errors, shown.elsewhere, shown.dialogs) == ([], [], [])


def test_it_shows_lag_and_seqs_live_while_the_primary_is_written_to(pair: Pair, show: Show) -> None:
    primary, replica = pair
    with written(primary):
        shown = loaded(show(replica.page))
        choose(shown, "orders")
        seqs: list[int] = []

        def has_moved_on() -> bool:
            row = shown.page.locator("#table-rows tr", has_text="orders")
            seqs.append(int(row.locator("td").nth(3).inner_text().replace(",", "")))
            return len(set(seqs)) >= 4 and "ms" in row.locator("td").nth(1).inner_text()

        until(has_moved_on, "the seq moved on three times", 60.0)
        assert seqs == sorted(seqs)
        for chart in ("#lag-chart", "#ops-chart"):
            until(lambda chart=chart: is_drawn(shown, chart), f"{chart} has a line", 60.0)
        expect(shown.page.locator("#lag-chart")).to_have_attribute("aria-label", has_number("now"))
        run(
            shown,
            "SELECT item, count(*) AS sold, sum(price) AS income FROM orders GROUP BY 1 ORDER BY 3 DESC",
        )
        expect(shown.page.locator("#sql-result tbody tr").first).to_be_visible(timeout=OUTER_MS)
        shown.picture("light")
    assert shown.errors == []


@pytest.mark.skipif(IMAGE_WANTED not in os.environ, reason="make page-image makes it")
def test_a_picture_of_it_is_made(pair: Pair, show: Show) -> None:
    primary, replica = pair
    with written(primary), written(primary, "customers"):
        shown = loaded(show(replica.page))
        choose(shown, "orders")
        shown.page.wait_for_timeout(90_000)  # a while to be seen in the charts
        shown.page.evaluate("document.activeElement.blur()")
        below = shown.page.locator("#facts").bounding_box()
        assert below is not None
        IMAGE.parent.mkdir(exist_ok=True)
        clip = {"x": 0, "y": 0, "width": 1280, "height": below["y"]}
        shown.page.screenshot(path=IMAGE, clip=clip)


def is_drawn(shown: Shown, chart: str) -> bool:
    """Whether there is something in the chart's color on its canvas."""
    return bool(
        shown.page.evaluate(
            """(chart) => {
                const canvas = document.querySelector(chart + " canvas");
                if (canvas === null || canvas.width === 0) return false;
                const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
                for (let i = 0; i < data.length; i += 4) {
                    const [r, g, b, a] = data.slice(i, i + 4);
                    if (a > 200 && Math.max(r, g, b) - Math.min(r, g, b) > 60) return true;
                }
                return false;
            }""",
            chart,
        )
    )


def has_number(word: str) -> re.Pattern[str]:
    return re.compile(rf"{word} [<\d]")


def test_it_runs_a_query_and_says_where_it_was_read(pair: Pair, show: Show) -> None:
    shown = loaded(show(pair[1].page))
    box = shown.page.get_by_label("Statement")
    box.fill("SELECT id, item, NULL AS nothing FROM orders WHERE id < 3 ORDER BY id")
    box.press("Control+Enter")
    cells = shown.page.locator("#sql-result tbody td")
    expect(cells).to_have_text(["0", "item 0", "NULL", "1", "item 1", "NULL", "2", "item 2", "NULL"])
    expect(shown.page.locator("#sql-position")).to_contain_text("orders at seq")
    expect(shown.page.locator("#sql-state")).to_contain_text("3 rows")
    run(shown, "SELECT * FROM range(5000)")
    expect(shown.page.locator("#sql-state")).to_contain_text("1,000 rows (the first 1,000; there are more)")
    run(shown, "SELECT * FROM nowhere")
    expect(shown.page.get_by_role("alert")).to_contain_text("nowhere")
    expect(shown.page.locator("#sql-result")).to_be_hidden()
    assert shown.errors == []


def test_what_is_set_lasts_as_long_as_the_page(pair: Pair, show: Show) -> None:
    shown = loaded(show(pair[1].page))
    run(shown, "SET time_zone = 'Asia/Tokyo'")
    expect(shown.page.locator("#sql-state")).to_contain_text("0 rows")
    run(shown, "SELECT extract(hour FROM TIMESTAMPTZ '2026-01-01 00:00:00+00')::INTEGER AS h")
    expect(shown.page.locator("#sql-result tbody td")).to_have_text(["9"])


def test_its_own_query_can_be_cancelled(pair: Pair, show: Show) -> None:
    shown = loaded(show(pair[1].page))
    run(shown, f"SELECT id, ({ENDLESS}) FROM orders")
    expect(shown.page.locator("#running-rows tr")).to_have_count(1, timeout=OUTER_MS)
    expect(shown.page.locator("#running-rows")).to_contain_text(
        re.compile(r"orders at seq [\d,]+, lag [<\d]")
    )
    expect(shown.page.locator("#running-rows")).to_contain_text("range(10000000)")
    shown.picture("running")
    shown.page.locator("#sql-cancel").click()
    expect(shown.page.get_by_role("alert")).to_have_text("cancelled")
    expect(shown.page.locator("#running-rows tr")).to_have_count(0, timeout=OUTER_MS)
    expect(shown.page.locator("#slow-rows")).to_contain_text("cancelled", timeout=OUTER_MS)
    assert shown.errors == []


def test_the_query_of_a_client_is_cancelled_by_its_button(pair: Pair, show: Show) -> None:
    replica = pair[1]
    shown = loaded(show(replica.page))
    raised: list[str] = []

    def ask() -> None:
        try:
            rows(replica.uri, ENDLESS)
        except Exception as error:
            raised.append(str(error))

    client = threading.Thread(target=ask)
    client.start()
    button = shown.page.locator("#running-rows").get_by_role("button")
    expect(button).to_have_count(1, timeout=OUTER_MS)
    assert "ipv4:127.0.0.1" in shown.text("#running-rows")
    button.click()
    client.join(60.0)
    assert "cancelled" in raised[0]
    expect(shown.page.locator("#running-rows tr")).to_have_count(0, timeout=OUTER_MS)
    assert shown.errors == []


def test_it_says_what_is_wrong_and_what_to_do(pair: Pair, show: Show) -> None:
    primary, replica = pair
    shown = loaded(show(replica.page))
    with primary.stopped():
        expect(shown.page.locator("#verdict-text")).to_contain_text("not well", timeout=OUTER_MS)
        expect(shown.page.locator("#advice li").first).to_contain_text("may be")
        expect(shown.page.locator("#verdict")).to_have_attribute("data-health", "warning")
        shown.picture("behind")
        shown.page.locator("#advice li a").first.click()
        expect(shown.page.get_by_role("heading", name="A table is behind")).to_be_in_viewport()
        shown.picture("help")
        shown.page.go_back()
    expect(shown.page.locator("#verdict-text")).to_have_text("All well: 3 tables", timeout=OUTER_MS)
    expect(shown.page.locator("#events")).to_contain_text("caught up again", timeout=OUTER_MS)
    assert shown.errors == []


def test_it_survives_the_server_s_restart(pair: Pair, show: Show) -> None:
    primary, _ = pair
    replica = Paged("serve", "--primary", primary.uri)
    with running(replica):
        shown = loaded(show(replica.page))
        shown.page.evaluate("window.isTheSamePage = true")
        replica.kill()
        expect(shown.page.locator("#live")).to_contain_text("not reached", timeout=OUTER_MS)
        expect(shown.page.locator("#verdict-text")).to_have_text("The server isn't reached")
        shown.picture("away")
        again = Paged(
            "serve",
            "--primary",
            primary.uri,
            http=replica.page.partition("//")[2],
            listen=replica.address,
        )
        with running(again):
            expect(shown.page.locator("#live")).to_have_text("live", timeout=OUTER_MS)
            expect(shown.page.locator("#verdict-text")).to_have_text("All well: 3 tables", timeout=OUTER_MS)
            run(shown, "SELECT count(*) > 0 FROM orders")
            expect(shown.page.locator("#sql-result tbody td")).to_have_text(["true"])
            assert shown.page.evaluate("window.isTheSamePage")
            assert [error for error in shown.errors if "ERR_" not in error] == []


def test_it_says_that_the_server_shuts_down_and_ends_what_that_waits_for(pair: Pair, show: Show) -> None:
    replica = Paged("serve", "--primary", pair[0].uri)
    with running(replica):
        shown = loaded(show(replica.page))
        run(shown, ENDLESS)
        expect(shown.page.locator("#running-rows tr")).to_have_count(1, timeout=OUTER_MS)
        os.kill(replica.pid, signal.SIGTERM)
        expect(shown.page.locator("#verdict-text")).to_contain_text("Shutting down", timeout=OUTER_MS)
        shown.page.locator("#running-rows").get_by_role("button").click()
        assert replica.wait(60.0) == 0


@pytest.mark.parametrize("name", ["Python (ADBC)", "JDBC"])
def test_a_snippet_is_chosen_and_copied(pair: Pair, show: Show, name: str) -> None:
    shown = loaded(show(pair[1].page))
    shown.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown.page.get_by_role("tab", name=name).click()
    shown.page.locator("#snippet-copy").click()
    expect(shown.page.locator("#snippet-copy")).to_have_text("Copied")
    copied = shown.page.evaluate("navigator.clipboard.readText()")
    assert pair[1].address in copied
