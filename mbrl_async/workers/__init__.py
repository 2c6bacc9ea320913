"""What each worker does in a step; when is `conf/schedule/`, where is `conf/backend/`."""
