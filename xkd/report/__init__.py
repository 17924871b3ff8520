"""The ablation table, its figures and its page, made from metrics files alone."""
