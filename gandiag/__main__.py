"""Entry point of `python -m gandiag`."""

from gandiag.cli.main import entry

if __name__ == "__main__":
    entry()
