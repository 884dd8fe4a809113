"""Statistics on feature matrices."""
