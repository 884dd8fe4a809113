"""Entry point of `python -m gandiag`."""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # the working folder, before anything could be imported from it

from gandiag.cli.start import entry

if __name__ == "__main__":
    entry()
