"""The jobs by name: what the command line calls, and where each is imported from, without importing it."""

JOBS: dict[str, tuple[str, str]] = {
    "run": ("phaseb.stages.run", "all stages in order"),
    "collect": ("phaseb.stages.collect", "record real episodes in the environment"),
    "import": ("phaseb.stages.collect", "read real episodes from files"),
    "encode": ("phaseb.stages.encode", "train the encoder; episodes to latents"),
    "bricks": ("phaseb.stages.bricks", "cluster the episodes and value the clusters"),
    "dynamics": ("phaseb.stages.dynamics", "train the latent dynamics"),
    "synthesize": ("phaseb.stages.synthesize", "roll the world model out"),
    "trust": ("phaseb.stages.gate", "train the trust networks; weigh every synthetic transition"),
    "judge": ("phaseb.stages.judge", "ask fresh classifiers whether synthetic data is real"),
    "policy": ("phaseb.stages.policy", "train SAC on real and trusted data, every arm"),
    "evaluate": ("phaseb.stages.evaluate", "measure what the policies earn"),
    "worth": ("phaseb.stages.attribution", "what each brick of episodes is worth, and what to collect next"),
    "flywheel": ("phaseb.flywheel.loop", "generations: train, gate, promote or keep, collect, again"),
    "report": ("phaseb.stages.report", "write results.json and the page"),
}
