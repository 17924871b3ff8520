"""The terms of the training objective, each with its formula in one file."""
