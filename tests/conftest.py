"""Settings of every test: Hypothesis without deadlines, since how long an example takes depends on the machine."""

from hypothesis import settings

settings.register_profile("flight-replica", deadline=None)
settings.load_profile("flight-replica")
