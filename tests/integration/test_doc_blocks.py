"""Every line of every shell and Python block in README and docs does what its page says.

Blocks of one page run in order, in one folder. What takes minutes, or the package registry, runs with
`make test-docs`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests.doc_blocks import PAGES, RUN, Page, read_page
from tests.doc_shell import BlockFailed, Terminal
from tests.processes import Server, is_answered, rows, running, until
from tests.samples import needs_samples

READ = [page for page in map(read_page, PAGES) if any(block.language in RUN for block in page.blocks)]


def parameters(pages: list[Page]) -> list[Any]:
    return [
        pytest.param(page, id=page.name, marks=[needs_samples] if page.needs_samples else [])
        for page in pages
    ]


SKIPPED_MAX = 8  # blocks; each has its reason beside it in the page


@contextmanager
def orders_served(folder: Path) -> Iterator[dict[int, int]]:
    """The servers of the README, for pages that begin with them: written port -> real one."""
    primary = Server("primary", "--data", str(folder / "primary"))
    with running(primary):
        rows(primary.uri, "CREATE TABLE orders (id BIGINT PRIMARY KEY, total DOUBLE)")
        rows(primary.uri, "INSERT INTO orders VALUES (1, 9.5), (2, 20)")
        replica = Server("serve", "--primary", primary.uri)
        with running(replica):
            until(is_answered(replica.uri, "SELECT count(*) FROM orders", [(2,)]), "the replica answers")
            yield {4711: _port(primary), 4712: _port(replica)}


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, int]]:
    with orders_served(tmp_path_factory.mktemp("orders")) as ports:
        yield ports


def _port(server: Server) -> int:
    return int(server.address.rpartition(":")[2])


def run_page(page: Page, folder: Path, ports: dict[int, int], *, heavy_too: bool) -> None:
    with Terminal(folder, ports) as terminal:
        for block in page.blocks:
            if block.language in RUN and not block.skip and (heavy_too or not block.is_heavy):
                terminal.run(block)


@pytest.mark.parametrize("page", parameters([page for page in READ if not page.is_slow]))
def test_the_blocks_of_a_page_do_what_it_says(
    page: Page, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    ports = request.getfixturevalue("orders") if page.has_orders else {}
    run_page(page, tmp_path, ports, heavy_too=False)


HEAVY = [page for page in READ if page.is_slow or any(block.is_heavy for block in page.blocks)]


@pytest.mark.docs
@pytest.mark.parametrize("page", parameters(HEAVY))
def test_the_blocks_of_a_page_that_take_long_do_what_it_says(page: Page, tmp_path: Path) -> None:
    with orders_served(tmp_path) if page.has_orders else nullcontext({}) as ports:
        run_page(page, tmp_path, ports, heavy_too=True)


def test_few_blocks_are_not_run_and_each_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    skipped = [block for page in READ for block in page.blocks if block.skip]
    with capsys.disabled():
        for block in skipped:
            print(f"\nnot run: {block.place}: {block.skip}", end="")
    assert len(skipped) <= SKIPPED_MAX


# --- the tests of the tests ------------------------------------------------------------------------------

WRONG = {
    "a command that is not there": "```sh\nflight-replica nix\n```\n",
    "a flag that is not there": "```sh\nflight-replica sql --nix grpc://127.0.0.1:1 'SELECT 1'\n```\n",
    "a server that does not start": "```sh\nflight-replica primary\n```\n",
    "a line in the middle that fails": "```sh\nfalse\ntrue\n```\n",
    "other output": "```console\n$ echo 1\n2\n```\n",
    "more output": "```console\n$ echo 1; echo 2\n1\n```\n",
    "no failure": "<!-- test: fails -->\n```sh\ntrue\n```\n",
    "an exception": "```python\nraise ValueError\n```\n",
}


@pytest.mark.parametrize("what", WRONG)
def test_a_block_that_is_wrong_fails(what: str, tmp_path: Path) -> None:
    page = _page(tmp_path, WRONG[what])
    with pytest.raises(BlockFailed, match=r"page\.md:\d"):
        run_page(page, tmp_path, {}, heavy_too=False)


def test_blocks_of_a_page_share_shell_python_folder_and_what_stands_for_a_place(tmp_path: Path) -> None:
    text = """<!-- test: setup
x=1
mkdir -p "$SCRATCH/data"
-->
<!-- test: where /data/ = $SCRATCH/data/ -->
```sh
y=$((x + 1)); echo "$y" > /data/two
```
```console
$ cat /data/two
2
$ echo 'a   b'; echo c; echo 127.0.0.1:4711
a b
…
127.0.0.1:1
```
```python
two = int(open("/data/two").read())
```
```python
assert two == 2
```
"""
    run_page(_page(tmp_path, text), tmp_path, {4711: 1}, heavy_too=False)


def _page(folder: Path, text: str) -> Page:
    path = folder / "page.md"
    path.write_text(text)
    return read_page(path)
