"""Train a LeRobot policy on an export by the gate's weights, in the loop of `lerobot-train` (LeRobot 0.6.1).

python -m phaseb.integrations.lerobot_train --dataset.repo_id=local/mine --dataset.root=exported \
    --policy.type=act --policy.push_to_hub=false --output_dir=trained

The arguments are those of `lerobot-train`. The script adds `--sample_weighting.type=trust`, which makes a
`TrustWeighter`. LeRobot's ACT takes no weights, so its loss is computed here for each sample. Of the other policies
those train that LeRobot itself lets weigh: smolvla, pi0, pi05, evo1, molmoact2.

LeRobot needs Python 3.12 and an older torch than phaseb, so install both in an environment of their own:

pip install "lerobot[training]==0.6.1" "pydantic>=2.9,<3" && pip install --no-deps phaseb
"""

import inspect
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from phaseb.errors import ConfigError, PhasebError
from phaseb.integrations.lerobot import TrustWeighter, chunk_losses

TYPE = "trust"
_OPTIONS = ("--sample_weighting", "--sample_weighting.type")
"""What chooses the kind of weights; other options of `sample_weighting` leave LeRobot's own kind, which is not ours."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `lerobot-train` with the weights of the data set.

    Args:
        arguments: of the command line; the process's own by default.

    Raises:
        ConfigError: where LeRobot is absent or older, or the policy takes no weights.
        DataError: where the data set holds no weights.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not any(word.partition("=")[0] in _OPTIONS for word in given):
        given.append(f"{_OPTIONS[1]}={TYPE}")
    try:
        from lerobot.scripts import lerobot_train
        from lerobot.utils import sample_weighting

        known, before = sample_weighting.make_sample_weighter, sys.argv
        sample_weighting.SampleWeighter.register(TrustWeighter)
    except (ImportError, AttributeError) as error:
        fix = 'pip install "lerobot[training]==0.6.1", in an environment of Python 3.12'
        raise ConfigError(f"{_lerobot_found()} ({' '.join(str(error).split())}): {fix}") from error
    sample_weighting.make_sample_weighter = partial(make_weighter, known)
    sys.argv = ["lerobot-train", *given]
    try:
        lerobot_train.main()
    finally:
        sample_weighting.make_sample_weighter, sys.argv = known, before


def _lerobot_found() -> str:
    """Why LeRobot's loop cannot be weighed here."""
    try:
        found = version("lerobot")
    except PackageNotFoundError:
        return "LeRobot is not installed"
    return f"LeRobot {found} has no training loop that takes weights, or lacks a package"


def make_weighter(
    otherwise: Any,
    config: Any,
    policy: Any,
    device: torch.device,
    dataset_root: str | None = None,
    dataset_repo_id: str | None = None,
) -> Any:
    """LeRobot's factory of weighters, with `trust` as one more type.

    Args:
        otherwise: the factory of the other types.
        config: `sample_weighting` of LeRobot's config.
        policy: which is to be trained; ACT learns to weigh.
        device: of the weights.
        dataset_root, dataset_repo_id: where the data set lies.

    Raises:
        ConfigError: where the policy takes no weights.
        DataError: where the data set holds no weights.
    """
    if config is None or config.type != TYPE:
        return otherwise(config, policy, device, dataset_root=dataset_root, dataset_repo_id=dataset_repo_id)
    if not dataset_root:
        raise ConfigError("trust weights need the folder of the export: set --dataset.root")
    weighter = TrustWeighter(str(dataset_root), device, policy.config.action_delta_indices)
    if "reduction" not in inspect.signature(policy.forward).parameters:
        if policy.config.type != "act":
            raise ConfigError(f"LeRobot's {policy.config.type} takes no weights: use act, smolvla, pi0, pi05 or evo1")
        policy.forward = partial(act_forward, policy, policy.forward, weighter)
    return weighter


def act_forward(
    policy: Any, plain: Any, weighter: TrustWeighter, batch: dict[str, Any], reduction: str = "mean"
) -> tuple[torch.Tensor, dict[str, float]]:
    """LeRobot's loss of ACT, with `reduction="none"` for each sample.

    Args:
        policy: LeRobot's ACTPolicy.
        plain: its own `forward`.
        weighter: gives the weights of a chunk's actions.
        batch: normalised, with `index` (B,) and `action_is_pad` (B, K).
        reduction: `mean` for LeRobot's own loss.

    Returns:
        The losses (B,), or the loss; and what LeRobot logs of it.
    """
    if reduction != "none":
        return plain(batch)
    seen, config = dict(batch), policy.config
    if config.image_features:
        seen["observation.images"] = [seen[key] for key in config.image_features]
    actions, (mean, log_variance) = policy.model(seen)
    weights = weighter.weights[seen["index"].reshape(-1).long().cpu()].to(actions)
    shares = weighter.chunk_shares(seen["index"]).to(actions) * ~seen["action_is_pad"]
    losses = chunk_losses((seen["action"] - actions).abs().mean(-1), shares, weights)
    total = weights.sum().clamp(min=1e-9)
    said = {"l1_loss": float((weights * losses.detach()).sum() / total)}
    if config.use_vae and log_variance is not None:
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
        said["kld_loss"] = float((weights * divergence.detach()).sum() / total)
        losses = losses + config.kl_weight * divergence
    return losses, said


if __name__ == "__main__":
    try:
        main()
    except PhasebError as failure:
        sys.stderr.write(f"phaseb: {failure}\n")
        sys.exit(failure.exit_code)
