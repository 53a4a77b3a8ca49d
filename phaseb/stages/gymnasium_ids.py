"""The ids that phaseb adds to Gymnasium; Gymnasium calls `register` by an entry point of the package."""

import gymnasium

GENERATOR_ID = "phaseb/Generator-v0"


def register() -> None:
    """Make the generator environment known to `gymnasium.make` (once; again does nothing)."""
    if GENERATOR_ID not in gymnasium.registry:
        gymnasium.register(GENERATOR_ID, entry_point="phaseb.stages.generator_environment:GeneratorEnv")
