"""The stages of the ladder: base, mid-training, SFT, Rollout DPO, GRPO. One readable file each."""
