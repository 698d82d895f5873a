"""Rollouts: sampled answers of a model, by one function on CPU, GPU or vLLM."""

from phi_lab.sampling.params import Sample, SamplingParams
from phi_lab.sampling.sampler import ENGINES, engine_for, release_memory, sample, stop_tokens, to_sample
from phi_lab.sampling.vllm import release_engine, require_vllm

__all__ = [
    "ENGINES", "Sample", "SamplingParams", "release_engine", "release_memory", "require_vllm", "sample", "stop_tokens",
    "engine_for",
    "to_sample",
]
