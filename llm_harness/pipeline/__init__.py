"""The paper's scheme: stages on disk, and the experiments made of them."""
