"""The rows of the ablation table: settings of the world model that differ from the schema's defaults."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

Settings = dict[str, Any]
CONFIGS = Path(__file__).parent.parent / "configs"


def report(name: str = "report-2025") -> Settings:
    """The world model of one of the founding report's configs."""
    return dict(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["world_model"])


def merge(*parts: Mapping[str, Any]) -> Settings:
    """Nested settings, later ones over earlier ones."""
    merged: Settings = {}
    for part in parts:
        for key, value in part.items():
            old = merged.get(key)
            merged[key] = merge(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    return merged


def rows(horizon: int) -> dict[str, Settings]:
    """Every ablation by name: the report's model and each of its remedies, then what goes beyond it."""
    plain = report()
    full = merge(plain, {"recon": {"one_step": 0.0, "rollout": 1.0}, "horizon": {"steps": horizon, "start": horizon}})

    def schedule(name: str) -> Settings:
        return merge(full, {"teacher_forcing": {"schedule": name, "start": 1.0, "end": 0.0}})

    clamp = {"clamp_quantile": 0.995}
    trust, feature, variance = ({"weights": w} for w in ({"trust": 0.02}, {"feat": 0.1}, {"var": 0.02}))
    return {
        "report": plain,
        "report + critic": report("report-2025-trust"),
        "full horizon": full,
        "+ constant forcing": merge(full, {"teacher_forcing": {"start": 0.5}}),
        "+ linear forcing": schedule("linear"),
        "+ exponential forcing": schedule("exponential"),
        "+ inverse sigmoid forcing": schedule("inverse_sigmoid"),
        "+ residual clamp": merge(full, clamp),
        "+ trust loss": merge(full, trust),
        "+ feature loss": merge(full, feature),
        "+ variance loss": merge(full, variance),
        "+ shorter segments": merge(full, {"horizon": {"steps": max(2, horizon // 3), "start": max(2, horizon // 3)}}),
        "everything of the report": merge(schedule("linear"), clamp, trust, feature, variance),
        "both losses at once": merge(
            plain,
            {
                "loss": "smooth_l1",
                "layer_norm": True,
                "recon": {"one_step": 2.0, "rollout": 0.3},
                "horizon": {"steps": horizon, "start": min(10, horizon)},
            },
        ),
        "defaults": {},
        "defaults, networks alone": {"gp_correction": {"enabled": False}},
        "defaults, nothing read ahead": {"action_lookahead": 0},
        "defaults, dimensions as they are": {"decorrelate": False},
        "defaults, no events": {"find_events": False},
        "defaults, no blocks": {"num_blocks": 0},
        "defaults, one outcome": {"num_modes": 1},
        "defaults, one member": {"num_members": 1},
        "defaults, one step only": {"recon": {"rollout": 0.0}},
        "defaults + residual clamp": clamp,
        "defaults + trust loss": trust,
        "defaults + feature loss": feature,
        "defaults + variance loss": variance,
        "defaults + bootstrapped noise": {"noise": "bootstrap"},
        "defaults + learned noise": {"noise": "heteroscedastic"},
    }
