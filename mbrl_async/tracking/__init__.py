"""The one writer to MLflow, the live display, and what is recorded of the machine."""

import os

# MLflow asks for these whenever it is about to send or to print something; imported before MLflow, this package also
# keeps it from preparing to.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it would print into the display
