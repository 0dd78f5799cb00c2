"""Hugging Face folders, both ways: one file for each family of models; the only door to transformers."""
