"""Inspection of recordings: what they hold, what is wrong with them, and what a run would do with them."""
