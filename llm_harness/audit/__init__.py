"""What theory/ and the output matrix say of a model and of data."""
