"""Statistics on feature matrices: distances, neighbors, clusters, moments, splits and intervals."""
