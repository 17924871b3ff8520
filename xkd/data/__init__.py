"""From raw media to batches of views."""
