"""Trials of two policies on a real robot: how many, in which order, and what they decide."""
