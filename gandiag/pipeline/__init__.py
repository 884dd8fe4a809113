"""The stages of one audit, from opening the subject to building the record."""
