"""``python -m minillm``, and where the command ``minillm`` begins.

Nothing is imported before Ctrl-C is provided for: also who presses it while NumPy and Numba are
being loaded sees one line.
"""

import signal
import sys


def main() -> int:
    """Run the command line as a process of its own; returns the exit code."""
    try:
        from .cli import main as command

        code = command()
    except KeyboardInterrupt:
        print("minillm: interrupted", file=sys.stderr)
        code = 130
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: what Python still tidies up takes no time
    return code


if __name__ == "__main__":
    sys.exit(main())
