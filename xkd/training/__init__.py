"""Training: the loop, the step that it repeats, and the files of a run."""
