"""How to connect with each kind of client: texts to copy, with this server's address and a table of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flight_replica.flightsql.port import in_uri

_EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Snippet:
    id: str
    title: str
    note: str
    code: str

    def as_json(self) -> dict[str, str]:
        return {"id": self.id, "title": self.title, "note": self.note, "code": self.code}


@dataclass(frozen=True, slots=True)
class Address:
    """Where the Flight port is, as clients see it."""

    host: str
    port: int
    is_tls: bool = False
    is_login_needed: bool = False

    @property
    def uri(self) -> str:
        return f"{'grpc+tls' if self.is_tls else 'grpc'}://{self.netloc}"

    def seen_from(self, host: str) -> Address:
        """The same for who has reached this server's host by that name; it stands where no host is stated."""
        return replace(self, host=host) if host and self.host in _EVERYWHERE else self

    @property
    def netloc(self) -> str:
        return f"{in_uri(self.host)}:{self.port}"


def snippets(address: Address, table: str) -> list[Snippet]:
    """One for each kind of client, reading from `table`."""
    sql = f'SELECT * FROM "{table.replace(chr(34), chr(34) * 2)}" LIMIT 10'
    connect = _connect(address)
    body = f"sql = {sql!r}\nwith flight_sql.connect({connect}) as connection:\n"
    head = "import adbc_driver_flightsql.dbapi as flight_sql\n"
    return [
        Snippet(
            "adbc",
            "Python (ADBC)",
            "pip install adbc-driver-flightsql adbc-driver-manager pyarrow",
            f"{head}\n{body}"
            "    with connection.cursor() as cursor:\n"
            "        cursor.execute(sql)\n"
            "        print(cursor.fetch_arrow_table())",
        ),
        Snippet(
            "pandas",
            "pandas",
            "pip install pandas adbc-driver-flightsql adbc-driver-manager pyarrow",
            f"import pandas\n{head}\n{body}    print(pandas.read_sql(sql, connection))",
        ),
        Snippet(
            "polars",
            "polars",
            "pip install polars adbc-driver-flightsql adbc-driver-manager pyarrow",
            f"import polars\n{head}\n{body}    print(polars.read_database(sql, connection))",
        ),
        Snippet(
            "duckdb",
            "DuckDB",
            "pip install duckdb adbc-driver-flightsql adbc-driver-manager pyarrow; rows come over as Arrow",
            f"import duckdb\n{head}\n{body}"
            "    with connection.cursor() as cursor:\n"
            "        cursor.execute(sql)\n"
            "        found = cursor.fetch_arrow_table()\n"
            'print(duckdb.sql("SELECT count(*) FROM found"))',
        ),
        Snippet(
            "jdbc",
            "JDBC",
            "DBeaver, Tableau, Metabase, Spark: the driver org.apache.arrow:flight-sql-jdbc-driver",
            _jdbc(address),
        ),
        Snippet(
            "odbc",
            "BI tools (ODBC)",
            "Power BI, Excel, Tableau: the Arrow Flight SQL ODBC driver",
            _odbc(address),
        ),
        Snippet(
            "shell",
            "Command line",
            "pip install flight-replica",
            f"flight-replica sql {address.uri} {_shell_quoted(sql)}",
        ),
    ]


def _connect(address: Address) -> str:
    """The arguments of ADBC's `connect`."""
    if not address.is_login_needed:
        return f'"{address.uri}"'
    return f'"{address.uri}", db_kwargs={{"username": "USER", "password": "PASSWORD"}}'


def _jdbc(address: Address) -> str:
    options = [f"useEncryption={'true' if address.is_tls else 'false'}"]
    options += ["user=USER", "password=PASSWORD"] if address.is_login_needed else []
    return f"jdbc:arrow-flight-sql://{address.netloc}/?{'&'.join(options)}"


def _odbc(address: Address) -> str:
    parts = [
        "Driver={Arrow Flight SQL ODBC Driver}",
        f"Host={address.host}",
        f"Port={address.port}",
        f"UseEncryption={'true' if address.is_tls else 'false'}",
    ]
    parts += ["UID=USER", "PWD=PASSWORD"] if address.is_login_needed else []
    return ";".join(parts)


def _shell_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
