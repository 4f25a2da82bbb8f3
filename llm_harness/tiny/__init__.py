"""The embedded model's own: its language, its corpus, and how references are pretrained."""
