"""Trained encoders, one folder each: they turn raw frames or a waveform into a vector."""
