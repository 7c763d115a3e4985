"""Datasets, splits and batched view generation."""
