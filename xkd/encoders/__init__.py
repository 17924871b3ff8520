"""Trained encoders as things to use: one folder each, theirs or yours, from raw pictures or sound to a vector."""
