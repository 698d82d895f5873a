"""What only the notebooks use: their run folder, exercises with checks, widgets, tables, small pictures."""

from phi_lab.lab.notebook import Lab

__all__ = ["Lab"]
