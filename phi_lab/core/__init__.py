"""What knows nothing of language models: errors, files, statistics, progress, energy, a client for served models."""
