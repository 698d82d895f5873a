"""Figures, tables and pages: the report of a run, and the tables of its independent replications."""
