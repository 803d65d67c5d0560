"""One configuration out of defaults, a file, variables and flags; and every way in which it can be wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from flight_replica.cli import primary_settings
from flight_replica.config import ConfigProblems, FeedConfig, PrimaryConfig, ServeConfig, ServerConfig, load
from flight_replica.errors import ConfigError
from flight_replica.flightsql.limits import DEFAULT_LIMITS, ServerLimits
from flight_replica.log.feed_client import Endpoint
from flight_replica.primary.settings import PrimarySettings
from flight_replica.replica.stats import DEFAULT_SETTINGS, ReplicaSettings

PRIMARY = 'primary.uri = "grpc://h:1"\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "replica.toml"


def lines(
    path: Path,
    text: str,
    config: type[ServerConfig] = ServeConfig,
    variables: Mapping[str, str] | None = None,
    **flags: object,
) -> list[str]:
    """All that is wrong, each line without the folder of the file."""
    path.write_text(text)
    with pytest.raises(ConfigProblems) as raised:
        load(config, flags, variables or {}, path)
    return [line.replace(f"{path.parent}/", "") for line in raised.value.lines]


# --- order ------------------------------------------------------------------------------------------------


def test_flags_count_more_than_variables_and_those_more_than_the_file(path: Path) -> None:
    path.write_text(
        PRIMARY + '[log]\nslow_query_ms = "1s"\n[limits]\nqueries_max = 1\npins_max = 2\nwaits_max = 3\n'
    )
    variables = {"FLIGHT_REPLICA_LIMITS_PINS_MAX": "20", "FLIGHT_REPLICA_LIMITS_WAITS_MAX": "30"}
    loaded = load(ServeConfig, {"limit": ["waits_max=300"]}, variables, path)
    limits = loaded.config.limits.model_dump()
    assert (limits["queries_max"], limits["pins_max"], limits["waits_max"]) == (1, 20, 300)
    assert limits["follows_max"] == 1000
    assert loaded.config.log.slow_query_ms == 1000
    sources = [
        loaded.source(("limits", name)) for name in ("queries_max", "pins_max", "waits_max", "follows_max")
    ]
    assert [source.kind for source in sources] == ["file", "variable", "flag", "default"]
    assert [source.place for source in sources] == [
        f"{path}:5",
        "FLIGHT_REPLICA_LIMITS_PINS_MAX",
        "--limit",
        "",
    ]


def test_without_a_file_there_are_variables_and_flags() -> None:
    variables = {"FLIGHT_REPLICA_PRIMARY_URI": "grpc://h:1", "FLIGHT_REPLICA_PRIMARY_TABLES": "a,b"}
    config = load(ServeConfig, {"listen": "0.0.0.0:7", "allow_open": True}, variables).config
    assert config.primary.tables == ("a", "b")
    assert config.listen == ("0.0.0.0", 7)


def test_what_is_said_of_a_table_can_come_from_both(path: Path) -> None:
    path.write_text('[tables.t]\nbase = "iceberg:v7.metadata.json"\nkey = ["id", "at"]\nbase_seq = 7\n')
    config = load(ServeConfig, {"base_seq": ["t=9"], "insert_only": ["t"]}, {}, path).config
    stated = config.tables["t"]
    assert stated.base == f"iceberg:{path.parent}/v7.metadata.json"
    assert (stated.key, stated.base_seq, stated.insert_only) == (("id", "at"), 9, True)


def test_a_configuration_is_frozen() -> None:
    config = load(ServeConfig, {"primary": "grpc://h:1"}, {}).config
    with pytest.raises(ValueError, match="frozen"):
        config.listen = ("h", 1)  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        config.access.auth = "jwt"  # type: ignore[misc]


def test_it_is_read_again_as_the_file_is_now(path: Path) -> None:
    path.write_text(PRIMARY + "[limits]\npins_max = 1\n")
    loaded = load(ServeConfig, {"limit": ["waits_max=5"]}, {}, path)
    path.write_text(PRIMARY + "[limits]\npins_max = 2\nwaits_max = 6\n")
    limits = loaded.again().config.limits.model_dump()
    assert (limits["pins_max"], limits["waits_max"]) == (2, 5)


# --- defaults ---------------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_parts_that_they_go_to() -> None:
    config = load(ServeConfig, {"primary": "grpc://h:1"}, {}).config
    assert ServerLimits(**config.limits.model_dump()) == DEFAULT_LIMITS
    assert ReplicaSettings(**config.state.model_dump()) == DEFAULT_SETTINGS
    primary = load(PrimaryConfig, {"data": "d"}, {}).config
    assert primary_settings(primary) == PrimarySettings()


# --- what is wrong ----------------------------------------------------------------------------------------


def test_all_that_is_wrong_in_a_file_is_told_at_once_line_by_line(path: Path) -> None:
    text = """\
listn = "127.0.0.1:1"
memory_limit = "4 gigs"
acces.auth = "basic"
primary = { uri = "grpc://h:1", tabels = ["a"] }

[access]
auth = "basic"
token_seconds = "10 minutes"
jwt_read = ["a", 5]
statement_seconds = 5
[limits]
queries_max = true
"pins max" = 1
[retention]
ops = 5
[tables."a b"]
key = 5
nonsense = 1
[tables]
c = "x"
"""
    assert lines(path, text) == [
        "replica.toml:1: listn: there is no such setting; did you mean listen?",
        'replica.toml:2: memory_limit: expected a size such as "4GB" or "500MiB", found "4 gigs"',
        "replica.toml:3: acces: there is no such setting; did you mean access?",
        "replica.toml:4: primary.tabels: there is no such setting; did you mean primary.tables?",
        "replica.toml:7: access.auth basic and access.users FILE go together",
        "replica.toml:8: access.token_seconds: expected a number above 0 of seconds, or a time such as "
        '"30s" or "5m", found "10 minutes"',
        'replica.toml:9: access.jwt_read: expected a list of texts, found ["a", 5]',
        "replica.toml:10: access.statement_seconds: there is no such setting; "
        "did you mean limits.statement_seconds?",
        "replica.toml:12: limits.queries_max: expected a number from 0, found true",
        'replica.toml:13: limits."pins max": there is no such setting; did you mean limits.pins_max?',
        "replica.toml:14: retention: there is no such setting of serve; primary has one",
        'replica.toml:17: tables."a b".key: expected columns, such as "a,b" or ["a", "b"], found 5',
        'replica.toml:18: tables."a b".nonsense: there is no such setting, only base, feed, lineage, '
        "schema_file, key, base_seq, text, insert_only",
        'replica.toml:20: tables.c: expected a table, [tables.c], found "x"',
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "replica.toml: give either primary.uri, or one tables.NAME.base or more"),
        (PRIMARY + '[tables.t]\nbase = "merutable:x"', "3: give either"),
        (PRIMARY + 'listen = "nowhere"', '2: listen: expected HOST:PORT, found "nowhere"'),
        (PRIMARY + "listen = 4711", "2: listen: expected HOST:PORT, found 4711"),
        (PRIMARY + 'listen = ""', '2: listen: expected HOST:PORT, found ""'),
        (PRIMARY + 'listen = "0.0.0.0:1"', "2: listen 0.0.0.0: without access.auth everybody there could"),
        (PRIMARY + 'http.listen = "0.0.0.0:1"', "2: http.listen 0.0.0.0: without access.auth"),
        (PRIMARY + 'admin = {listen = "[::]:1"}', "2: admin.listen ::: without access.auth"),
        (
            PRIMARY + 'listen = "127.0.0.1:7"\nhttp.listen = "127.0.0.1:7"',
            "3: listen and http.listen are the same",
        ),
        (PRIMARY + "limits.batch_bytes_max = 0", "2: limits.batch_bytes_max: expected a number above 0"),
        (PRIMARY + "state.heartbeat_ms = 0", "2: state.heartbeat_ms: expected a number above 0"),
        (PRIMARY + "access = 5", "2: access: expected a table, [access], found 5"),
        (PRIMARY + "[[access]]\nauth = 'none'", "2: access: expected a table, [access], found [{"),
        (
            PRIMARY + "log = {level = 'loud'}",
            '2: log.level: expected "debug" or "info" or "warning" or "error"',
        ),
        (PRIMARY + "log.slow_query_ms = 1979-05-27", "2: log.slow_query_ms: expected milliseconds from 0"),
        (PRIMARY + "access.users = 'x'", "2: access.auth basic and access.users FILE go together"),
        (PRIMARY + "access.tls_cert = 'x'", "2: access.tls_cert and access.tls_key go together"),
        (PRIMARY + "access.mtls_ca = 'x'", "2: access.mtls_ca needs access.tls_cert and access.tls_key"),
        (PRIMARY + "access.jwt_issuer = 'x'", "2: access.jwt_issuer goes with access.auth jwt"),
        (PRIMARY + "access.auth = 'jwt'", "2: access.auth jwt needs access.jwt_audience"),
        (PRIMARY + "access.auth = 'jwt'", "2: access.auth jwt: give either a secret (HS256)"),
        ('primary = {uri = "grpc://h:1/t"}', "1: primary.uri names a server: say primary.tables t"),
        (
            'primary.tables = ["a"]\n[tables.t]\nbase = "merutable:x"',
            "1: primary.tables goes with primary.uri",
        ),
        (PRIMARY + "primary.user = 'x'", "2: primary.user needs a password"),
        (PRIMARY + "primary.password_file = 'x'", "2: primary.password_file goes with primary.user"),
        (PRIMARY + "primary.cert = 'x'", "2: primary.cert and primary.key go together"),
        (PRIMARY + "[tables.t]\nfeed = 'grpc://h:1'", "3: tables.t.feed: there is no tables.t.base that"),
        (PRIMARY + "[tables.t]\ntext = 'a,a'", "3: tables.t.text: text columns 'a,a': a is there twice"),
        (
            "[tables.t]\nbase = 'nix:x'",
            "2: tables.t.base: the kind is merutable, iceberg or flight, not 'nix'",
        ),
        ("[tables.t]\nbase = 'merutable:'", "2: tables.t.base: expected a place behind the kind"),
        ("[tables.t]\nbase = 'merutable:x'\nkey = 'a'", "3: tables.t.key: it doesn't go with a"),
        ("[tables.t]\nbase = 'iceberg:x'\nbase_seq = -1", "3: tables.t.base_seq: expected a seq, found -1"),
        ("[tables.t]\nbase = 'iceberg:x'\nlineage = '1'", "3: tables.t.lineage: expected a UUID, found"),
        (PRIMARY + "tables = 5", "2: tables: expected a table"),
        ("[log]\nslow_query_ms = 1e300", "2: log.slow_query_ms: expected at most 100 years, found 1e+300"),
    ],
)
def test_each_wrong_setting_of_a_replica_has_its_line_and_what_was_expected(
    path: Path, text: str, told: str
) -> None:
    assert any(
        line.removeprefix("replica.toml:").startswith(told) or line == told for line in lines(path, text)
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "replica.toml: give one tables.NAME.catalog or more"),
        ("[tables.t]\ncatalog = 'c'", "2: tables.t.catalog needs tables.t.wal"),
        ("[tables.t]\nwal = 'c'", "2: tables.t.wal: there is no tables.t.catalog that it goes with"),
        (
            "[tables.t]\ncatalog = 'c'\nwal = 'w'\npublish = 'x'",
            "4: tables.t.publish: expected merutable:URI",
        ),
        ("[tables.t]\ncatalog = 'c'\nwal = 'w'\ntext = ['a?']", "4: tables.t.text: a feed's columns are"),
    ],
)
def test_each_wrong_setting_of_a_feed_has_its_line(path: Path, text: str, told: str) -> None:
    (line,) = lines(path, text, FeedConfig)
    assert line == told or line.removeprefix("replica.toml:").startswith(told)


def test_what_a_primary_needs_is_missed_in_its_file(path: Path) -> None:
    (line,) = lines(path, "listen = '127.0.0.1:1'", PrimaryConfig)
    assert line == "replica.toml: data is missing: where everything is kept"


def test_what_follows_from_a_wrong_value_is_not_told_too(path: Path) -> None:
    assert lines(path, PRIMARY + "[access]\nauth = 'basic'\nusers = 5\n") == [
        "replica.toml:4: access.users: expected the path of a file, found 5"
    ]


def test_a_wrong_variable_is_named(path: Path) -> None:
    variables = {"FLIGHT_REPLICA_LIMITS_PINS_MAX": "many", "FLIGHT_REPLICA_ACCESS_AUTH": "basic"}
    assert lines(path, PRIMARY, variables=variables) == [
        'FLIGHT_REPLICA_LIMITS_PINS_MAX: expected a number from 0, found "many"',
        "FLIGHT_REPLICA_ACCESS_AUTH basic and access.users FILE go together",
    ]


def test_a_variable_that_looks_like_a_setting_but_is_none_is_refused(path: Path) -> None:
    assert lines(path, PRIMARY, variables={"FLIGHT_REPLICA_LISTN": "x", "FLIGHT_REPLICA_LIMITS_X": "1"}) == [
        "FLIGHT_REPLICA_LIMITS_X: there is no such setting",
        "FLIGHT_REPLICA_LISTN: there is no such setting; did you mean FLIGHT_REPLICA_LISTEN?",
    ]


def test_variables_of_other_commands_and_of_kubernetes_are_left_alone(path: Path) -> None:
    path.write_text(PRIMARY)
    others = {
        "FLIGHT_REPLICA_RETENTION_OPS": "5",
        "FLIGHT_REPLICA_TOKEN": "x",
        "FLIGHT_REPLICA_PORT": "tcp://10.0.0.1:4711",
        "FLIGHT_REPLICA_PORT_4711_TCP_ADDR": "10.0.0.1",
        "FLIGHT_REPLICA_SERVICE_HOST": "10.0.0.1",
        "FLIGHT_REPLICA_HTTP_SERVICE_PORT": "80",
        "FLIGHT_REPLICA_JWT_SECRET": "of another server",
        "PATH": "",
    }
    assert load(ServeConfig, {}, others, path).config.access.auth == "none"


def test_secrets_are_not_shown_by_what_was_loaded() -> None:
    loaded = load(ServeConfig, {"primary": "grpc://h:1"}, {"FLIGHT_REPLICA_JWT_SECRET": "very secret"})
    assert loaded.config.access.jwt_secret is not None
    assert "very secret" not in repr(loaded) + str(loaded) + repr(loaded.config)


def test_a_password_in_a_uri_is_refused_and_not_shown(path: Path) -> None:
    told = lines(path, "[primary]\nuri = 'grpc://ann:hunter2@h:1'")
    assert told == [
        "replica.toml:2: primary.uri has a user in it, which would be shown: say primary.user for it"
    ]
    with pytest.raises(ConfigError) as raised:
        Endpoint("grpc://ann:hunter2@h:1/t")
    assert "h:1" in str(raised.value) and "hunter2" not in str(raised.value)


def test_a_secret_is_in_no_error(path: Path) -> None:
    told = lines(path, PRIMARY + "[access]\nauth = 'jwt'\njwt_secret = ['very secret']\n")
    assert any("access.jwt_secret: expected a text" in line for line in told)
    assert "very secret" not in "".join(told)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a = 1\nb = \n", ":2: this is no TOML, column 5: Invalid value"),
        (b"a = 1\na = 2\n", ":2: this is no TOML, column 6: Cannot overwrite a value"),
        (b'a = """\nx\n', ":3: this is no TOML: Unterminated"),
        (b"a = '\xff'", "isn't UTF-8, byte 5"),
        (b"a = " + b"9" * 5000, "a number in it has too many digits"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_toml_says_where(path: Path, content: bytes, told: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigError) as raised:
        load(ServeConfig, {}, {}, path)
    assert str(path) in str(raised.value)
    assert told in str(raised.value)


def test_a_file_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(ServeConfig, {}, {}, path)
    with pytest.raises(ConfigError, match="Is a directory"):
        load(ServeConfig, {}, {}, path.parent)


def test_lines_are_counted_in_files_of_other_systems_too(path: Path) -> None:
    path.write_bytes(b'primary.uri = "grpc://h:1"\r\n\r\nlisten = 5\r\n')
    with pytest.raises(ConfigProblems, match=r"replica.toml:3: listen: expected HOST:PORT"):
        load(ServeConfig, {}, {}, path)
