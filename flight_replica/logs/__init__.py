"""What the processes say of themselves, one event a line: for people, or as JSON.

A message is written as an event and then its fields, `"rebased table=%s base_seq=%d", table, seq`; no code
formats a value into the event. `events.py` takes it apart again by its template, never by its text, so that
a table named `a=b` changes nothing. `formats.py` writes lines of it, `request.py` says of which call an event
is, `setup.py` starts it all. What may never be in a log: passwords, tokens, values bound to parameters.
"""
