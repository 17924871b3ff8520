"""Encoders, decoders and projection heads, and the students and teachers made of them."""
