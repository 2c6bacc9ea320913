"""Several runs as one: a parent run in MLflow, jobs that are skipped once they are finished, a table of failures."""
