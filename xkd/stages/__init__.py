"""Stages of the pipeline: a module for each verb of the command line, with a function `run`."""
