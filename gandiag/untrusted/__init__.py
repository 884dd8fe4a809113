"""What comes from outside is opened and checked here: files, documents, settings of projects. Torch-free."""
