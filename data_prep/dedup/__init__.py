"""Removal of repeated pages and lines."""
