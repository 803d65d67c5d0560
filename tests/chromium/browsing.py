"""Playwright, which drives the browser; where it isn't installed, the tests that need it are skipped."""

from __future__ import annotations

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed: make test-page")
expect = sync_api.expect
expect.set_options(timeout=60_000)  # ms; generous, since what is waited for comes within a second or two
