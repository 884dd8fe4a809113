"""The command line, installed as gandiag.cli; one file per command."""
