"""Benchmarks: one module a number, each a ratio of two things measured in turn in one run, recorded in ``results/``."""
