"""phi-lab: a course you run. It trains a small language model through the whole
Phi-4-Mini-Reasoning recipe (distil, mid-train, fine-tune, Rollout DPO, GRPO) on one laptop."""

__version__ = "0.1.0"
