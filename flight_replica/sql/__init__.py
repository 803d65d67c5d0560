"""DuckDB as the query engine of every server: hardened databases, checked statements, pinned views."""
