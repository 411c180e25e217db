"""One training run: its settings, loop, files, workers and reports."""
