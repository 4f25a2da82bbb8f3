"""Whether a model has a trait: questions, rates and probabilities."""
