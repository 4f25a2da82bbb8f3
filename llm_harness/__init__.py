"""The thin harness: the paper's language-model experiments, behind one interface to models."""
