"""Whole runs: the chain of stages, experiments, planning, launching, export, notebooks."""
