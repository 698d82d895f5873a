"""The reward: decides whether an answer equals the gold answer, in a worker that can be stopped."""

from phi_lab.verify.verdict import RIGHT, Verdict, equal, extract, verify, verify_many

__all__ = ["RIGHT", "Verdict", "equal", "extract", "verify", "verify_many"]
