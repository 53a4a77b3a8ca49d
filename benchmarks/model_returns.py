"""Whether returns in generators can decide on a run's data: forecast skill of the models that are fitted for it.

    python benchmarks/model_returns.py RUN...

Each RUN is a run directory with latents. The models are those of a decision without an environment: fitted to resampled
train and dev episodes, measured on windows of the others.
"""

import argparse
import time

import numpy as np
import torch

from phaseb.config.load import load_config
from phaseb.dynamics.model_returns import ModelReturns, member_returns
from phaseb.runtime.storage import Store
from phaseb.stages.model_returns import NUM_MEMBERS
from phaseb.stages.sample import fit_sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN")
    torch.set_num_threads(1)
    print("| run | skill, states | skill, rewards | decides | processor s |\n| --- | --- | --- | --- | --- |")
    for folder in parser.parse_args().runs:
        config, store, began = (
            load_config(f"{folder}/config.yaml", [f"run.dir={folder}"]),
            Store.at(folder),
            time.process_time(),
        )
        recorded = fit_sample(config, store, "train", "dev")
        horizon = min(config.synthesis.horizon, int(recorded.lengths.max()))
        gp, seed = config.dynamics.gp, config.run.seed
        errors = [member_returns(gp, recorded, [], horizon, seed, member)[1] for member in range(NUM_MEMBERS)]
        found = ModelReturns(np.zeros((0, NUM_MEMBERS)), tuple(errors), horizon)
        state, reward = found.skill
        spent = time.process_time() - began
        print(f"| {folder} | {state:.2f} | {reward:.2f} | {found.refused or 'yes'} | {spent:.0f} |", flush=True)


if __name__ == "__main__":
    main()
