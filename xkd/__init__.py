"""XKD: self-supervised audio-visual pretraining with cross-modal distillation and domain alignment."""

__version__ = "0.1.0"
