"""Where a key stands is found in any TOML text, as tomllib reads it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from flight_replica.config.toml_lines import KeyPath, key_lines

TEXT = '''\
# not a key = 1
plain = 1  # nor = this
dotted . key = "a # b = c"
"quoted \\"key\\"" = 'x = 1'
'literal.key' = """
not = 1
still not "" = 2"""
list = [
  1, # one
  [2, 3],
  { in = "a", "}" = "]" },
]
inline = { a = 1, b.c = { d = [true] } }
raw = \'\'\'
x = '1\'\'\'\'

[table]
key = 1979-05-27T07:32:00Z
[table . "sub table"]
key = inf
[[many]]
key = 1
[many.below]
key = 2
[[many]]
key = 3
[[many.below]]
key = 4
'''


def test_every_kind_of_key_has_its_line() -> None:
    lines = key_lines(TEXT)
    assert lines == {
        ("plain",): 2,
        ("dotted",): 3,
        ("dotted", "key"): 3,
        ('quoted "key"',): 4,
        ("literal.key",): 5,
        ("list",): 8,
        ("list", 0): 9,
        ("list", 1): 10,
        ("list", 1, 0): 10,
        ("list", 1, 1): 10,
        ("list", 2): 11,
        ("list", 2, "in"): 11,
        ("list", 2, "}"): 11,
        ("inline",): 13,
        ("inline", "a"): 13,
        ("inline", "b"): 13,
        ("inline", "b", "c"): 13,
        ("inline", "b", "c", "d"): 13,
        ("inline", "b", "c", "d", 0): 13,
        ("raw",): 14,
        ("table",): 17,
        ("table", "key"): 18,
        ("table", "sub table"): 19,
        ("table", "sub table", "key"): 20,
        ("many",): 21,
        ("many", 0): 21,
        ("many", 0, "key"): 22,
        ("many", 0, "below"): 23,
        ("many", 0, "below", "key"): 24,
        ("many", 1): 25,
        ("many", 1, "key"): 26,
        ("many", 1, "below"): 27,
        ("many", 1, "below", 0): 27,
        ("many", 1, "below", 0, "key"): 28,
    }
    assert set(lines) == set(_paths(tomllib.loads(TEXT)))


def _paths(value: object, above: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key and element of a document."""
    inner: Iterator[tuple[str | int, object]] = iter(())
    if isinstance(value, dict):
        inner = iter(value.items())
    elif isinstance(value, list):
        inner = iter(enumerate(value))
    for key, found in inner:
        yield (*above, key)
        yield from _paths(found, (*above, key))


# --- any text ---------------------------------------------------------------------------------------------

_KEYS = st.one_of(
    st.from_regex(r"[A-Za-z0-9_-]{1,5}", fullmatch=True),
    st.text("ab .#='\"[]{}\\,\n", max_size=5).map(json.dumps),
    st.text('ab .#="[]{}\\,', max_size=5).map(lambda text: f"'{text}'"),
)
_SPACE = st.sampled_from(["", " ", "\t"])
_BREAK = st.sampled_from(["", " ", "\n", " # a = [1]\n", "\n\n"])
_SCALARS = st.one_of(
    st.sampled_from(["1", "-1.5e3", "true", "1979-05-27", "07:32:00", "0xff", "nan", '""', "''"]),
    st.text("ab .#='\"[]{}\\,", max_size=8).map(json.dumps),
    st.text('ab .#="[]{}\\,', max_size=8).map(lambda text: f"'{text}'"),
    st.text("ab #=\n'[]{},", max_size=8).map(lambda text: f'"""{text}"""'),
    st.sampled_from(
        ["'''\na = 1\n'''", '"""a""""', '"""a"""""', "''''a'''", '"""\\"""" """', '"""\\\n  b"""']
    ),
)


def _lists(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    elements = st.lists(st.tuples(_BREAK, values, _BREAK).map("".join), max_size=3)
    return st.tuples(elements, st.sampled_from(["", ","]), _BREAK).map(
        lambda found: "[" + ",".join(found[0]) + (found[1] if found[0] else "") + found[2] + "]"
    )


def _tables(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(_SPACE, _DOTTED, _SPACE, values, _SPACE)
    return st.lists(pairs.map(lambda found: "{}{}{}={}{}".format(*found)), max_size=3).map(
        lambda found: "{" + ",".join(found) + "}"
    )


_DOTTED = st.lists(_KEYS, min_size=1, max_size=3).flatmap(
    lambda keys: st.sampled_from([".", " . ", "\t."]).map(lambda dot: dot.join(keys))
)
_VALUES = st.recursive(_SCALARS, lambda values: _lists(values) | _tables(values), max_leaves=6)
_LINES = st.one_of(
    st.tuples(_DOTTED, _SPACE, _VALUES).map(lambda found: f"{found[0]}{found[1]}= {found[2]} # x\n"),
    _DOTTED.map(lambda key: f"[ {key} ]\n"),
    _DOTTED.map(lambda key: f"[[{key}]] # [x]\n"),
    st.sampled_from(["\n", "# comment = 1\n", "  \t\n"]),
)


@given(st.lists(_LINES, max_size=8))
def test_any_text_has_a_line_for_every_key_and_for_nothing_else(lines: list[str]) -> None:
    text = ""
    for line in lines:  # what makes the text no TOML is left out
        try:
            tomllib.loads(text + line)
        except tomllib.TOMLDecodeError:
            continue
        text += line
    found = key_lines(text)
    assert set(found) == set(_paths(tomllib.loads(text)))
    last = text.count("\n") + 1
    assert all(1 <= line <= last for line in found.values())
