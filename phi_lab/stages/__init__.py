"""The stages of the ladder: base, mid-training, SFT, Rollout DPO, GRPO.

    base.py, mid_training.py, sft.py, rollout_dpo.py, grpo.py     what one reads: the method, top to bottom
    minimal_lm.py, minimal_dpo.py, minimal_grpo.py                the same on one page each, without TRL
    minimal_ppo.py                                                PPO's critic beside GRPO's group
    packing.py, muon.py                                           rows of documents; the optimizer
    lm_trainer.py, dpo_trainer.py, grpo_trainer.py, training.py   the seam to TRL, FSDP and vLLM
"""
