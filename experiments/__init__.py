"""Named experiments, their records on disk, and the command line."""
