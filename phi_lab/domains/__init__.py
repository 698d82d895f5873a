"""Families of problems that can be generated, solved and checked without anybody's help."""
