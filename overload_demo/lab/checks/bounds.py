"""Exercises of the notebook."""
