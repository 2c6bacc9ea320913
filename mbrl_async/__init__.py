"""Asynchronous model-based reinforcement learning: collect, model and improve at the same time."""
