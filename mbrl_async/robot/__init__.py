"""Robots: one interface, its drivers, a task that drives any of them, and a server that puts one on the network."""
