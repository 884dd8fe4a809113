"""The collapse score, from neighborhoods to an interval."""
