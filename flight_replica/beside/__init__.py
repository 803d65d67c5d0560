"""The feed server beside a running merutable engine: its log, its files, and a feed out of both.

Everything here only reads the engine's directories. `log_file.py`, `row_values.py` and `engine_log.py` know
the log, `engine_catalog.py`, `tombstones.py` and `table_changes.py` the files; `recent_ops.py` keeps what was
read; `engine_feed.py` is the table's feed, `engine_table.py` what keeps it going.
"""
