"""One media file as trained encoders see it: what they are given, what they fill in, what they look at."""
