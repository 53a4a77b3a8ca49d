"""The jobs by name: what the command line calls, and where each is imported from, without importing it."""

JOBS: dict[str, tuple[str, str]] = {
    "run": ("phaseb.runs.pipeline", "all stages in order"),
    "collect": ("phaseb.runs.collect", "record real episodes in the environment"),
    "import": ("phaseb.runs.collect", "read real episodes from files"),
    "encode": ("phaseb.runs.encode", "train the encoder; episodes to latents"),
    "bricks": ("phaseb.runs.bricks", "cluster the episodes and value the clusters"),
    "world-model": ("phaseb.runs.world_model", "train the latent dynamics"),
    "synthesize": ("phaseb.runs.synthesize", "roll the world model out"),
    "trust": ("phaseb.runs.trust", "train the trust networks; weigh every synthetic transition"),
    "judge": ("phaseb.runs.judge", "ask fresh classifiers whether synthetic data is real"),
    "policy": ("phaseb.runs.policy", "train SAC on real and trusted data, every arm"),
    "evaluate": ("phaseb.runs.evaluate", "measure what the policies earn"),
    "worth": ("phaseb.runs.worth", "what each brick of episodes is worth, and what to collect next"),
    "flywheel": ("phaseb.flywheel.wheel", "generations: train, gate, promote or keep, collect, again"),
    "report": ("phaseb.runs.report", "write results.json and the page"),
}
