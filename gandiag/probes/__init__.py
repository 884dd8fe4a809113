"""What must call the generator itself."""
