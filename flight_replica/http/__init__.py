"""The HTTP side port: probes, metrics, login, and the page. Nothing of the data path depends on it."""
