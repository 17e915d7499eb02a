"""Transformers whose attention heads carry an explicit gate."""
