"""Entry point of `python -m gandiag`."""

from gandiag.cli.start import entry

if __name__ == "__main__":
    entry()
