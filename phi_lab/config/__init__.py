"""Every setting of a run: what can be set, the presets of each scale, the paper's values."""
