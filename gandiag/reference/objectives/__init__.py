"""One file per remedy, each written to be read beside its paper."""
