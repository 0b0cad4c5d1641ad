"""Workloads to look at and to copy: one folder each."""
