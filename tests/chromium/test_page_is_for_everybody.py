"""Phones, dark rooms, keyboards and screen readers."""

from __future__ import annotations

import pytest

from tests.chromium.browsing import expect
from tests.chromium.conftest import Show
from tests.chromium.test_page_works import OUTER_MS, Pair, choose, loaded, run

# For every visible text: its contrast against what is behind it; those that are too weak are given.
WEAK_TEXTS = """() => {
    const channel = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const parse = (text) => text.match(/[\\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
    const behind = (element) => {
        for (let at = element; at !== null; at = at.parentElement) {
            const color = parse(getComputedStyle(at).backgroundColor);
            if (color.length < 4 || color[3] > 0) return color;
        }
        return [255, 255, 255];
    };
    const weak = [];
    for (const element of document.querySelectorAll("body *")) {
        const texts = [...element.childNodes].filter((node) => node.nodeType === 3);
        const text = texts.map((node) => node.textContent.trim()).join("");
        if (text === "" || !element.checkVisibility()) continue;
        if (element.closest(":disabled, .unseen, .skip, svg")) continue;
        const [one, two] = [luminance(parse(getComputedStyle(element).color)), luminance(behind(element))];
        const contrast = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
        if (contrast < 4.5) weak.push(`${contrast.toFixed(2)} ${text.slice(0, 40)}`);
    }
    return weak;
}"""


def test_on_a_phone_nothing_is_wider_than_the_window(pair: Pair, show: Show) -> None:
    shown = loaded(show(pair[1].page, width=390, height=844))
    expect(shown.page.locator("#verdict-text")).to_be_in_viewport()
    choose(shown, "orders")
    run(shown, "SELECT *, repeat('a long text ', 30) AS more, repeat('x', 500) AS longer FROM orders LIMIT 5")
    expect(shown.page.locator("#sql-result tbody tr")).to_have_count(5, timeout=OUTER_MS)
    for name in ("JDBC", "polars"):
        shown.page.get_by_role("tab", name=name).click()
        assert not shown.is_wider_than_its_window()
    shown.picture("phone")
    shown.page.goto(f"{pair[1].page}/page/help.html")
    assert not shown.is_wider_than_its_window()
    assert shown.errors == []


@pytest.mark.parametrize("width", [320, 600, 761, 1024, 2560])
def test_no_window_is_too_narrow_or_too_wide(pair: Pair, show: Show, width: int) -> None:
    shown = loaded(show(pair[1].page, width=width))
    assert not shown.is_wider_than_its_window()
    charts = shown.page.locator("#lag-chart").bounding_box()
    assert charts is not None and charts["width"] <= width


def test_it_is_dark_where_that_is_preferred_and_can_be_switched(pair: Pair, show: Show) -> None:
    shown = loaded(show(pair[1].page, is_dark=True))
    choose(shown, "orders")
    assert brightness(shown) < 60
    shown.picture("dark")
    shown.page.locator("#theme").click()
    assert brightness(shown) > 200
    shown.page.reload()
    expect(shown.page.locator("#verdict-text")).to_have_text("All well: 3 tables", timeout=OUTER_MS)
    assert brightness(shown) > 200
    assert shown.errors == []


def brightness(shown: object) -> float:
    color = shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
    values = [float(value) for value in color.partition("(")[2].rstrip(")").split(",")[:3]]
    return sum(values) / 3


@pytest.mark.parametrize("is_dark", [False, True])
def test_every_text_stands_out_from_what_is_behind_it(pair: Pair, show: Show, is_dark: bool) -> None:
    shown = loaded(show(pair[1].page, is_dark=is_dark))
    run(shown, "SELECT 1 AS one, NULL AS nothing")
    expect(shown.page.locator("#sql-result tbody td")).to_have_count(2)
    assert shown.page.evaluate(WEAK_TEXTS) == []
    run(shown, "SELECT nonsense")
    expect(shown.page.get_by_role("alert")).to_be_visible()
    assert shown.page.evaluate(WEAK_TEXTS) == []
    shown.page.goto(f"{pair[1].page}/page/help.html")
    assert shown.page.evaluate(WEAK_TEXTS) == []


def test_every_control_has_a_name_and_every_table_heads(pair: Pair, show: Show) -> None:
    shown = loaded(show(pair[1].page))
    snapshot = shown.page.locator("body").aria_snapshot()
    unnamed = [
        line for line in snapshot.splitlines() if line.strip() in ("- button", "- textbox", "- link", "- tab")
    ]
    assert unnamed == []
    for landmark in ("banner", "main", "navigation"):
        assert shown.page.get_by_role(landmark).count() == 1
    assert shown.page.locator("th:not([scope])").count() == 0
    assert shown.page.locator("html[lang]").count() == 1


def test_it_can_be_used_by_the_keyboard_alone(pair: Pair, show: Show) -> None:
    shown = loaded(show(pair[1].page))
    page = shown.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        if page.evaluate("document.activeElement.textContent") == "stock_items":
            page.keyboard.press("Enter")
            expect(page.locator("#detail-name")).to_have_text("stock_items")
    assert {"theme", "copy-address", "orders", "sql-text", "sql-run", "tab-adbc", "snippet-copy"} <= reached
    page.locator("#tab-adbc").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", selected=True)).to_have_text("pandas")
