"""Solver and net files: read, resolve, rewrite."""
