"""`python -m flight_replica`: the command line."""

import sys

from flight_replica.cli import main

sys.exit(main())
