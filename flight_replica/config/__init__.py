"""One frozen configuration a process: its settings, their sources, and what is wrong with them.

A setting stands in one place, a section (sections.py, commands.py), with name, default, unit, check, flag and
explanation. `load` puts defaults, file, variables and flags together.
"""

from flight_replica.config.commands import CONFIGS, FeedConfig, PrimaryConfig, ServeConfig
from flight_replica.config.flags import add_flags
from flight_replica.config.loading import Loaded, load
from flight_replica.config.problems import ConfigProblems
from flight_replica.config.sections import ServerConfig

__all__ = [
    "CONFIGS",
    "ConfigProblems",
    "FeedConfig",
    "Loaded",
    "PrimaryConfig",
    "ServeConfig",
    "ServerConfig",
    "add_flags",
    "load",
]
