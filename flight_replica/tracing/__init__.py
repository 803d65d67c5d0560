"""OpenTelemetry spans of queries and of ops on their way to readers. Needs `flight-replica[tracing]`.

Spans are made of what is measured anyway, once it is over (`queries.py`, `applies.py`), so that nothing is
done and nothing is imported where tracing is off. `exporter.py` sends them, over OTLP.
"""
