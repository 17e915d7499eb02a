"""Smaller models: what to remove, within which budget, and what that saves."""
