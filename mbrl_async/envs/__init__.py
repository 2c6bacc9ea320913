"""Tasks: bodies, observations, and rewards defined once for reality and imagination."""
