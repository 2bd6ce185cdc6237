"""Histories of runs under faults, recorded by every process, and a checker of them."""
