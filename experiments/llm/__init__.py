"""`sublab llm`: the language-model experiments on the embedded model."""
