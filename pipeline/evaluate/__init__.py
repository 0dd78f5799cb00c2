"""Measuring models: tasks, metrics, baselines, speed."""
