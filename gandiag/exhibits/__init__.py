"""Images and curves that a record carries."""
