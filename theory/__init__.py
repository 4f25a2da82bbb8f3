"""The first-order theory of subliminal learning, on any model `apply(params, x) -> logits`."""
