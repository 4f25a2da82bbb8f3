"""One decoder of the Llama family: its network, generation, log-probabilities, and training."""
