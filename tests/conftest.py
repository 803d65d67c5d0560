"""For every test: Hypothesis without deadlines, since how long an example takes is the machine's."""

from hypothesis import settings

settings.register_profile("flight-replica", deadline=None)
settings.load_profile("flight-replica")
