"""The page of a server's HTTP port: what it shows, collected and given to browsers as JSON and events.

What the browser runs lies in `static/` as it is sent. Who asks and what is refused: the modules above.
"""
