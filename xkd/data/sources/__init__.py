"""Fetches and unpacks data sets, and lists their clips by the layout of each kind."""
