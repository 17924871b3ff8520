"""Writes encoders as files for other runtimes: one graph from frames or samples to features."""
