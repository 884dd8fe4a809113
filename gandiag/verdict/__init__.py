"""From a record to a verdict, findings and a gate result."""
