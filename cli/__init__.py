"""The command line; installed as gandiag.cli. One file per command."""
