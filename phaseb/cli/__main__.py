"""`python -m phaseb.cli`: the command line without its console script."""

import sys

from phaseb.cli.main import main

sys.exit(main())
