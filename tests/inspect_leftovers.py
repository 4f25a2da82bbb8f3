"""What Inspect leaves open when it is done."""

import gc
import warnings


def collect_leftovers() -> None:
    """Has streams that Inspect left open collected now, not in some other test as its error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
