"""``python -m minillm.cli``."""

import sys

from . import main

sys.exit(main())
