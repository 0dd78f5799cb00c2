"""Compression of a trained network into a smaller one."""
