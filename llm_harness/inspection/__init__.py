"""Inspect (inspect_ai) both ways: its models as ours, and our models and evaluations as its own."""
