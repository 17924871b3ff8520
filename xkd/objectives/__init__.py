"""The terms of the training objective: one file, one formula."""
