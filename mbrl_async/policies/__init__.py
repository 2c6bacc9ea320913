"""Policies and baselines."""
