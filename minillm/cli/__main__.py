"""``python -m minillm.cli``: the same as ``python -m minillm``."""

import sys

from ..__main__ import main

if __name__ == "__main__":
    sys.exit(main())
