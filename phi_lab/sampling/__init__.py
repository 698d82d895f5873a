"""Rollouts: sampled answers of a model, by one function on CPU, GPU or vLLM."""
