"""Many trainings: sweeps, searches, and the processes that run them side by side."""
