"""phi-lab: a course you run. It trains a small language model through the whole
Phi-4-Mini-Reasoning recipe (distil, mid-train, fine-tune, Rollout DPO, GRPO) on one laptop."""

import logging
import os

__version__ = "0.1.0"

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # TRL's trainers report their use, and nobody was asked

# bitsandbytes warns at import that an optional 4-bit kernel for CPUs is not installed; nothing here needs it.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
