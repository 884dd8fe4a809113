"""Package data read at run time: the catalogue of metrics and rules, remedies, page templates."""
