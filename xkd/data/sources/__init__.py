"""The data sets of the paper: where they come from, how they are fetched and unpacked, what their files mean."""
