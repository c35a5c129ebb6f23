"""Nothing to share but the folder on the path (see `example_files.py`)."""
