"""What is remembered of a run: the local journal and MLflow."""
