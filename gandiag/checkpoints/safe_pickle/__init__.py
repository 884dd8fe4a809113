"""Reads torch files and pickles without executing them."""
