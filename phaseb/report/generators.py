"""The generators as policies use them: judges, returns, ranking and branch tests beside physics."""

from collections.abc import Mapping
from typing import Any

from phaseb.report.html import paragraph, section, table
from phaseb.runtime.formatting import number

NO_PHYSICS = (
    "No environment: a cloned operator acts in each generator from held-out starts, and its episodes are compared "
    "with held-out recorded ones. Branch tests and rankings need physics."
)


def generators_section(found: Mapping[str, Any] | None) -> str:
    """Tables of `closed_loop.json`; nothing where it was not made."""
    if not found:
        return ""
    generators = found["generators"]
    known = {name: one for name, one in generators.items() if "failed" not in one}
    failed = [paragraph(f"{name} is left out: {one['failed']}.") for name, one in generators.items() if "failed" in one]
    parts = [paragraph(_about(found)), *failed]
    if known:
        parts.append(_judges(found, known))
    if any("ranking" in one for one in known.values()):
        parts += [_returns(known), _branches(known)]
    return section("Generators in closed loop", *parts)


def choice_section(choice: Mapping[str, Any] | None) -> str:
    """Which generator policies branched in and why: the evidence of `dynamics/chosen.json`."""
    if not choice:
        return ""
    keys = ("score", "state_skill", "reward_skill", "trusted_steps", "judge_auc_noise", "coverage_50", "coverage_90")
    rows = [
        [name, *(number(one.get(key)) for key in keys), one["out"] or "–"] for name, one in choice["evidence"].items()
    ]
    header = [
        "generator",
        "forecast score",
        "skill, latents",
        "skill, rewards",
        "trusted steps",
        "AUC with noise",
        "50 % coverage",
        "90 % coverage",
        "left out because",
    ]
    about = (
        f"Forecasts of {choice['horizon']} steps of held-out recorded episodes, under actions that the generator "
        "does not know in advance. 1 is a perfect score, 0 that of a naive forecast."
    )
    said = choice["reason"]
    return section(
        "The generator that policies branch in",
        paragraph(f"{said[0].upper()}{said[1:]}.", "verdict kept"),
        table(header, rows, told=True),
        paragraph(about),
    )


def _about(found: Mapping[str, Any]) -> str:
    if not found["physics"]:
        return NO_PHYSICS
    return (
        f"Policies act for {found['horizon']} steps in physics and in each generator, from the same starts; a "
        "generator reads no action in advance. Fresh judges compare the two; 0.5 is chance. Physics against itself is "
        "the floor."
    )


def _judges(found: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """A row for each generator and arm, and for each floor; a column for each rung and noise level."""
    compared = {f"physics, other {kind}": judged for kind, judged in found["floors"].items()}
    compared |= {f"{name}, {arm}": judged for name, one in known.items() for arm, judged in one["judges"].items()}
    if not compared:
        return ""
    levels = [(steps, sigma) for steps, by_sigma in next(iter(compared.values())).items() for sigma in by_sigma]
    rows = [
        [name, *(number(judged[steps][sigma]["auc"]) for steps, sigma in levels)] for name, judged in compared.items()
    ]
    return table(["AUC of the worst judge", *(f"{steps} steps, noise {sigma}" for steps, sigma in levels)], rows)


def _returns(known: Mapping[str, Any]) -> str:
    """A row for each generator: how well it prices and ranks the pool."""
    rows = []
    for name, one in known.items():
        ranks = one["ranking"]
        exploited = max(one["exploitability"].values(), default=None)
        rows.append(
            [
                name,
                str(ranks["num_policies"]),
                f"{one['return_bias']:+.1%}",
                number(ranks["pearson"]),
                number(ranks["spearman"]),
                number(ranks["mmrv"]),
                number(exploited),
            ]
        )
    header = [
        "return in the generator, against physics",
        "policies",
        "bias",
        "Pearson",
        "Spearman",
        "MMRV",
        "excess of policies trained in it",
    ]
    return table(header, rows)


def _branches(known: Mapping[str, Any]) -> str:
    """A row for each generator and kind of unrecorded actions, at the last step of the branches."""
    rows = []
    for name, one in known.items():
        for kind, numbers in one["branches"].items():
            last = [
                number(numbers[key][-1])
                for key in ("nrmse", "persistence", "reward_nrmse", "coverage_50", "coverage_90")
            ]
            events = [number(numbers[key]) for key in ("event_precision", "event_recall")]
            rows.append([f"{name}, {kind} actions, {len(numbers['nrmse'])} steps", *last, *events])
    header = [
        "branches",
        "nRMSE",
        "nRMSE of no change",
        "reward nRMSE",
        "50 % coverage",
        "90 % coverage",
        "event precision",
        "event recall",
    ]
    return table(header, rows)
