"""Verdict, findings, comparison and CI gate: everything that is concluded from a record. Torch-free."""
