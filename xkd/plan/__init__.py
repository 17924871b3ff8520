"""Predicts from the settings alone what a run takes: parameters, arithmetic, memory, storage and time."""
