"""Generations: train, gate, promote or keep, collect more, and again."""
