"""How often is a worse policy promoted, and how often a better one, with and without physics?

    python benchmarks/promotion.py --seeds 210 211 212 213 --out promotion.json

Every seed makes a pool of policies of every quality (policy_pool.py) and plays each for 200 episodes in physics: the
truth. Each ordered pair of a pool is a case. Without an environment the decision is `decide_by_estimate` on fitted Q
evaluation, or on returns in models fitted to the recorded episodes; a promotion is false where the candidate's
return in physics is not above the baseline's. With one it is
`decide`: its false promotions are counted where there is no difference, by taking the mean difference out of a pair's
episodes. Seeds that `--out` already holds are not run again.
"""

import argparse
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from policy_pool import STEPS, Player, Pool, make_pool
from scipy.stats import spearmanr

from phaseb.config.data import ValuationConfig
from phaseb.config.dynamics import GPConfig
from phaseb.config.evaluation import FqeConfig, PromotionConfig
from phaseb.dynamics.model_returns import ModelReturns, member_returns
from phaseb.dynamics.rollout import Policy
from phaseb.episodes.trajectories import Trajectories
from phaseb.policy.evaluation import Row, aggregate
from phaseb.policy.fqe import fitted_q_evaluation
from phaseb.promotion.contest import Contest
from phaseb.promotion.decision import decide, decide_by_estimate
from phaseb.runtime.seeding import numpy_generator
from phaseb.stages.model_returns import NUM_MEMBERS

PAIR = Contest(("trust_weighted",), ("real_only",))
VALUATION = ValuationConfig()
STEPS_PLAYED = 60
ESTIMATORS = ("fqe", "model")
LARGE_GAIN = 100
GAPS = (0, 100, 200, 300, 2000)
FINAL = f"real_only@{STEPS}"
Case = dict[str, Any]


def estimated(pool: Pool, seed: int, config: PromotionConfig) -> dict[str, Any]:
    """By estimator, `fqe` and `model`: a decision for every ordered pair, the rank correlation with the truth, and
    the seconds."""
    start = time.process_time()
    result = fitted_q_evaluation(FqeConfig(), list(pool.players.values()), pool.episodes, seed)
    half = time.process_time()
    played = in_models(pool.episodes, list(pool.players.values()), STEPS_PLAYED, seed)
    seconds = {"fqe": half - start, "model": time.process_time() - half}
    found = {}
    for method, values, bias in (("fqe", result.values, 0.0), ("model", played.values, played.bias)):
        cases, rank = decided(pool, values, result.support, config, method, bias)
        found[method] = {"cases": cases, "rank_correlation": rank, "seconds": seconds[method]}
    return found | {"model_returns": played.to_json()}


def in_models(episodes: Trajectories, players: Sequence[Player], horizon: int, seed: int) -> ModelReturns:
    """What players return in models fitted to resampled episodes, as a run without an environment measures it."""
    policies = [_policy(player) for player in players]
    made = [member_returns(GPConfig(), episodes, policies, horizon, seed, k) for k in range(NUM_MEMBERS)]
    return ModelReturns(np.stack([values for values, _ in made], 1), tuple(error for _, error in made), horizon)


def _policy(player: Player) -> Policy:
    act = player.closed_loop()
    return lambda z, step: torch.from_numpy(act(z.numpy(), step))


def decided(
    pool: Pool,
    estimates: NDArray[np.floating],
    departures: NDArray[np.floating],
    config: PromotionConfig,
    method: Any,
    bias: float,
) -> tuple[list[Case], float]:
    """A decision by estimates (P, M) for every ordered pair, and their rank correlation with the truth."""
    names = list(pool.players)
    truth = {name: aggregate(rows, VALUATION) for name, rows in pool.rows.items()}
    scale = {"return": float(np.abs(pool.train.rewards.sum(1)).mean())}
    cases = []
    for (i, base), (j, new) in itertools.permutations(enumerate(names), 2):
        values, support = ({"real_only": of[[i]], "trust_weighted": of[[j]]} for of in (estimates, departures))
        decision = decide_by_estimate(config, PAIR, values, support, len(pool.train), scale, method=method, bias=bias)
        told = {name: truth[new][name] - truth[base][name] for name in ("return", "net_value_per_hour")}
        found = {name: decision["evidence"][name] for name in ("difference", "low", "excess_low")}
        found["departure"] = decision["departure"]["trust_weighted"]
        cases.append({"baseline": base, "candidate": new, "promoted": decision["promoted"], **found, **told})
    return cases, float(spearmanr(estimates.mean(1), [truth[name]["return"] for name in names])[0])


def tested(pool: Pool, seed: int, config: PromotionConfig, num_draws: int) -> list[Case]:
    """Decisions in physics about pairs drawn from a pool, as they are and with their mean difference taken out."""
    g, names = numpy_generator(seed, "decisions"), list(pool.rows)
    cases = []
    for _ in range(num_draws):
        base, new = (names[i] for i in g.choice(len(names), 2, replace=False))
        order = g.permutation(len(pool.rows[base]))
        net = {name: np.array([_net(row) for row in pool.rows[name]]) for name in (base, new)}
        gap = net[new].mean() - net[base].mean()
        for equal in (False, True):
            rows = {
                "real_only": [pool.rows[base][i] for i in order],
                "trust_weighted": [
                    pool.rows[new][i] | {"good_units": pool.rows[new][i]["good_units"] - equal * gap} for i in order
                ],
            }
            decision = decide(config, PAIR, VALUATION, _measure(rows), [0], len(pool.train))
            hours = np.mean([row["duration_h"] for row in pool.rows[base]])
            cases.append(
                {
                    "equal": equal,
                    "promoted": decision["promoted"],
                    "net_value_per_hour": gap / hours,
                    "spent": decision["budget"]["spent_episodes"],
                }
            )
    return cases


def _measure(rows: Mapping[str, Sequence[Row]]) -> Any:
    first = PromotionConfig().first_seed

    def measure(arm: str, policy_seed: int, episodes: Sequence[int]) -> list[Row]:
        return [{**rows[arm][e - first], "seed": float(e)} for e in episodes]

    return measure


def _net(row: Row) -> float:
    paid = VALUATION.price_per_kwh * row["energy_wh"] / 1000
    return VALUATION.price_per_unit * row["good_units"] - VALUATION.cost_per_error * row["errors"] - paid


def rates(cases: Sequence[Case], truth: str) -> dict[str, float]:
    """False promotions among cases that are no better and among promotions; promotions among cases that are better."""
    better, promoted = (np.array(x, bool) for x in ([c[truth] > 0 for c in cases], [c["promoted"] for c in cases]))
    false = int((promoted & ~better).sum())
    return {
        "num_cases": len(cases),
        "not_better": int((~better).sum()),
        "promoted": int(promoted.sum()),
        "false": false,
        "false_rate": false / max(int((~better).sum()), 1),
        "false_share_of_promoted": false / max(promoted.sum(), 1),
        "power": float(promoted[better].mean()) if better.any() else float("nan"),
    }


def told(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    by = {m: [case for row in results.values() for case in row["estimated"][m]["cases"]] for m in ESTIMATORS}
    in_physics = [case for row in results.values() for case in row["tested"]]
    as_they_are = [c for c in in_physics if not c["equal"]]
    equal = [c | {"net_value_per_hour": 0.0} for c in in_physics if c["equal"]]
    rows = [
        *(row for method, cases in by.items() for row in _rows_of(method, cases)),
        {"cases": "physics, pairs as they are", **rates(as_they_are, "net_value_per_hour")},
        {"cases": "physics, pairs made equal", **rates(equal, "net_value_per_hour")},
        *(
            {
                "cases": f"physics, better by {low} to {high} $/h",
                **rates([c for c in as_they_are if low < c["net_value_per_hour"] <= high], "net_value_per_hour"),
            }
            for low, high in itertools.pairwise(GAPS)
        ),
    ]
    names = {"cases": "cases", "not_better": "no better", "promoted": "promoted", "false": "false"}
    print(f"{'':52s}" + "".join(f"{name:>10s}" for name in (*names.values(), "rate", "power")))
    for row in rows:
        counts = "".join(f"{row[name]:10d}" for name in ("num_cases", *list(names)[1:]))
        print(f"{row['cases']:52s}{counts}{row['false_rate']:10.1%}{row['power']:10.1%}")
    for method in ESTIMATORS:
        ranks = ", ".join(f"{row['estimated'][method]['rank_correlation']:.2f}" for row in results.values())
        print(f"rank correlation of {method} and return in physics, by seed: {ranks}")
    return rows


def _rows_of(method: str, cases: Sequence[Case]) -> list[dict[str, Any]]:
    arms = [c for c in cases if c["baseline"] == FINAL and "@" in c["candidate"]]
    large = [c for c in cases if not 0 < c["net_value_per_hour"] <= LARGE_GAIN]
    return [
        {"cases": f"{method}, all pairs, truth: return", **rates(cases, "return")},
        {"cases": f"{method}, all pairs, truth: net value", **rates(cases, "net_value_per_hour")},
        {"cases": f"{method}, gains above {LARGE_GAIN} $/h", **rates(large, "net_value_per_hour")},
        {"cases": f"{method}, learned arms against real_only, truth: return", **rates(arms, "return")},
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[210, 211, 212, 213])
    parser.add_argument("--draws", type=int, default=100, help="decisions in physics a seed, of either kind")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(args.out.read_text())["seeds"] if args.out and args.out.exists() else {}
    for seed in args.seeds:
        if str(seed) not in results:
            pool = make_pool(seed)
            results[str(seed)] = {
                "estimated": estimated(pool, seed, PromotionConfig()),
                "tested": tested(pool, seed, PromotionConfig(), args.draws),
            }
            if args.out:
                args.out.write_text(json.dumps({"seeds": results}))
    print(json.dumps({"benchmark": "promotion", "seeds": list(results), "rows": told(results)}))


if __name__ == "__main__":
    main()
