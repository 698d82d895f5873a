"""Accuracy of a model: the ladder's benchmarks, and public ones."""
