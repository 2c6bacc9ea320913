"""What a run tells: the one writer to MLflow, the live display."""
