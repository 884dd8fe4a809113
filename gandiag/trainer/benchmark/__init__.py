"""The benchmark of recipes, remedies and seeds that ships with the package (`gandiag bank`)."""
