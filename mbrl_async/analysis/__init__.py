"""Figures of finished runs, read from MLflow alone."""
