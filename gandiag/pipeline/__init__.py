"""One audit, from an opened subject to an unjudged record."""
