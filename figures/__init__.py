"""Figures, drawn from records alone, as files."""

import os

# Notebooks export a backend of their own, which other processes cannot import: matplotlib would
# fail as soon as it is imported, whichever module here is the first to do so.
os.environ["MPLBACKEND"] = "Agg"
