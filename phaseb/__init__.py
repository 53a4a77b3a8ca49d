"""phaseb: synthetic data that is safe, and worth having, for offline robot learning."""

__version__ = "0.1.0"
