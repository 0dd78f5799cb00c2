"""Theseum: from raw web pages to a small, verified language model."""
