"""``python -m minillm``, and where the command ``minillm`` begins.

Ctrl-C is provided for before anything is imported: also who presses it while NumPy and Numba are
being loaded sees one line.
"""

import gc
import os
import signal
import sys


def main() -> int:
    """Run the command line as a process of its own; returns the exit code."""
    # subtle: an exception, as Python would raise one, can be lost in the middle of an import
    signal.signal(signal.SIGINT, _quit)
    # imports and a vocabulary are 200,000 objects that stay: no need to look for garbage among them
    gc.set_threshold(500_000)
    from .cli import main as command

    code = command()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done, and Python only tidies up
    if code == 130:
        # subtle: where an eval() was interrupted, Python remembers it, and ends with another code
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(code)
    return code


def _quit(signum: int, frame: object) -> None:
    try:
        os.write(2, b"minillm: interrupted\n")
    except OSError:  # nobody is there to read it
        pass
    os._exit(128 + signum)


if __name__ == "__main__":
    sys.exit(main())
