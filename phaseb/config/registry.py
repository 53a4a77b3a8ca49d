"""The jobs by name: what the command line calls, and where each is imported from, without importing it."""

READERS = ("report",)
"""Jobs that only read a run directory and tell what is there: they need no lock on it."""

STAGES_MODULE = "phaseb.stages.run"
"""Runs all stages, or those of one command."""

JOBS: dict[str, tuple[str, str]] = {
    "run": (STAGES_MODULE, "all stages, then the report"),
    "collect": (STAGES_MODULE, "record real episodes in the environment"),
    "import": ("phaseb.stages.imported", "read real episodes from files"),
    "encode": (STAGES_MODULE, "train the encoder; episodes to latents"),
    "bricks": (STAGES_MODULE, "cluster the episodes and value the clusters"),
    "dynamics": (STAGES_MODULE, "fit the generators: GRU ensemble, Gaussian processes, your own"),
    "synthesize": (STAGES_MODULE, "make the stored rollouts"),
    "trust": (STAGES_MODULE, "train the trust networks; weigh every synthetic transition"),
    "judge": (STAGES_MODULE, "ask fresh classifiers whether synthetic data is real"),
    "policy": (STAGES_MODULE, "train SAC on real and trusted data, every arm"),
    "evaluate": (STAGES_MODULE, "measure what the policies earn"),
    "worth": (STAGES_MODULE, "what each brick of episodes is worth, and what to collect next"),
    "flywheel": ("phaseb.flywheel.loop", "generations: train, gate, promote or keep, collect, again"),
    "report": ("phaseb.stages.report", "write results.json and the page"),
}
