"""Phi models from under a million parameters to 3.8 billion: shapes, checkpoints, the chat format."""
