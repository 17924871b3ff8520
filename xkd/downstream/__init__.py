"""Judges pretrained encoders: protocols on frozen features, finetuning, and their metrics."""
