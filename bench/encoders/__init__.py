"""Backbones and what a protocol evaluates."""
