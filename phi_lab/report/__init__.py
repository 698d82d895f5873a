"""Figures, tables and pages: the report of a run, and the page about independent replications."""
