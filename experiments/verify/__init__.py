"""`sublab verify`: the claims of theory/ on random instances, and where they must fail."""
