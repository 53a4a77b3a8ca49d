"""How fast are rollouts, against a plain loop over `torch.nn.GRUCell` with the same weights, and against the machine?

    OMP_NUM_THREADS=1 python benchmarks/rollout.py [--quick] [--rows 1024] [--repeats 5] [--out FILE]

The plain loop is what one writes by hand: a module a member, GRUCell, Linear, LayerNorm, a loop over members and steps.
Its weights are copied from ours and its rollouts are checked to be ours before anything is timed. Both carry an
ensemble of three; ours measures its disagreement as well. One thread.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from paired import gemm_rate, ratio, show, timed, told

from phaseb.config.dynamics import GRUConfig
from phaseb.dynamics.gru_ensemble.learner import make_learner
from phaseb.dynamics.gru_ensemble.model import EnsembleDynamics
from phaseb.episodes.trajectories import Trajectories
from phaseb.nn.data_parallel import WorkerContext

T, D, A = 60, 16, 2


class PlainMember(nn.Module):
    """One member of the ensemble as a reader of the paper would write it."""

    def __init__(self, bundle: EnsembleDynamics, k: int) -> None:
        super().__init__()
        m = bundle.model
        h, u, seen = m.hidden_size, m.input_sizes[1], m.from_a.weight.shape[1]
        self.model = m
        self.cell, self.stream = nn.GRUCell(D + seen, h), nn.Linear(h + D + seen, u)
        self.blocks = nn.ModuleList(
            [nn.Sequential(nn.LayerNorm(u), nn.Linear(u, u), nn.SiLU(), nn.Linear(u, u)) for _ in m.blocks]
        )
        self.head = nn.Linear(u, m.head.weight.shape[-1])
        self.outcome_in, self.outcome_out = nn.Linear(u + 2 * D, u), nn.Linear(u, 2)
        of_input = torch.cat([m.from_y.weight[k], m.from_a.weight[k]])
        self.cell.weight_ih.data, self.cell.bias_ih.data = of_input[:, : 3 * h].T, m.from_a.bias[k, 0, : 3 * h]
        self.cell.weight_hh.data, self.cell.bias_hh.data = m.from_h.weight[k].T, m.from_h.bias[k, 0]
        self.stream.weight.data = torch.cat([m.to_stream.weight[k], of_input[:, 3 * h :]]).T
        self.stream.bias.data = m.to_stream.bias[k, 0] + m.from_a.bias[k, 0, 3 * h :]
        pairs = [(self.head, m.head), (self.outcome_in, m.outcome_in), (self.outcome_out, m.outcome_out)]
        for mine, theirs in zip(self.blocks, m.blocks, strict=True):
            mine[0].weight.data, mine[0].bias.data = theirs.norm.gain[k, 0], theirs.norm.shift[k, 0]
            pairs += [(mine[1], theirs.first), (mine[3], theirs.second)]
        for mine, theirs in pairs:
            mine.weight.data, mine.bias.data = theirs.weight[k].T.contiguous(), theirs.bias[k, 0]
        self.cell.weight_ih.data = self.cell.weight_ih.data.contiguous()
        self.cell.weight_hh.data = self.cell.weight_hh.data.contiguous()
        self.stream.weight.data = self.stream.weight.data.contiguous()

    def forward(self, y: Tensor, seen: Tensor, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m, x = self.model, torch.cat([y, seen], -1)
        h = self.cell(x, h)
        u = self.stream(torch.cat([h, x], -1))
        for block in self.blocks:
            u = u + block(u)
        out = self.head(u)
        steps = out[:, : m.num_modes * D].view(-1, m.num_modes, D)
        after = y[:, None] + steps * m.step_scale * m.varying
        if m.bounded:
            after = torch.clamp(after, m.low, m.high)
        if m.num_modes > 1:
            index = out[:, -m.num_modes :].argmax(-1)[:, None, None].expand(-1, 1, D)
            after = after.gather(1, index)
        after = after[:, 0]
        reward = self.outcome_out(nnf.silu(self.outcome_in(torch.cat([u, y, after - y], -1))))
        return after, h, reward


@torch.inference_mode()
def plain_rollout(members: list[PlainMember], z0: Tensor, seen: Tensor) -> Tensor:
    """(K, N, T + 1, D)."""
    made = []
    for member in members:
        y, h = member.model.to_model_space(z0), torch.zeros(len(z0), member.model.hidden_size)
        states = [z0]
        for t in range(seen.shape[1]):
            y, h, _ = member(y, seen[:, t], h)
            states.append(member.model.from_model_space(y))
        made.append(torch.stack(states, 1))
    return torch.stack(made)


def make_bundle(members: int, seed: int = 0, **changes: object) -> EnsembleDynamics:
    """An ensemble on made-up latents without jumping dimensions; untrained, for speed does not depend on it. They go
    where actions drive them, so that landings, where they are asked for, are sharper and used."""
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (20, T, A)).astype(np.float32)
    moves = np.tanh(actions @ rng.normal(size=(A, D)))
    z = np.cumsum(0.2 * np.concatenate([rng.normal(size=(20, 1, D)), moves], 1), 1).astype(np.float32)
    data = Trajectories(
        z=z / z.std(),
        actions=actions,
        rewards=rng.normal(size=(20, T)).astype(np.float32),
        terminals=np.zeros((20, T), np.float32),
        lengths=np.full(20, T),
        ids=tuple(map(str, range(20))),
        splits=("train",) * 20,
    )
    networks = {"gp_correction": {"enabled": False}}  # they are what a plain loop is beside
    config = GRUConfig.model_validate({"num_members": members, **networks, **changes})
    return make_learner(config, data, WorkerContext(seed)).bundle()


def flops(bundle: EnsembleDynamics) -> float:
    """Of the products of one member's step on one row."""
    return 2.0 * sum(p[0].numel() for name, p in bundle.model.named_parameters() if name.endswith("weight"))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few rows: looks whether it works")
    parser.add_argument("--out")
    return parser.parse_args()


def main() -> None:
    options = read_options()
    torch.set_num_threads(1)
    rows = 128 if options.quick else options.rows
    bundles = {k: make_bundle(k) for k in (1, 3, 5)}
    landing = make_bundle(3, gp_correction={})
    assert landing.gp_correction is not None
    bundle, z0, actions = bundles[3], torch.randn(rows, D), torch.rand(rows, T, A) * 2 - 1
    members, seen = [PlainMember(bundle, k).eval() for k in range(3)], bundle._seen(actions)
    difference = float((plain_rollout(members, z0, seen) - bundle.members_rollout(z0, actions)).abs().max())
    assert difference < 1e-3, f"the plain loop rolls out differently by {difference}"

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(0)

    seconds = timed(
        {
            "plain": lambda: plain_rollout(members, z0, seen),
            **{f"phaseb{k}": lambda b=b: b.rollout(z0, actions, T, generator()) for k, b in bundles.items()},
            "landings": lambda: landing.rollout(z0, actions, T, generator()),
            "split": lambda: bundles[5].rollout(z0, actions, T, generator(), split=True),
        },
        options.repeats,
    )
    rates = [3e-9 * T * rows * flops(bundle) / s for s in seconds["phaseb3"]]
    width = bundle.config.head_size
    gemm = gemm_rate(3, rows, width, width)
    against = {
        "plain": ratio(seconds, "plain", "phaseb3"),
        "all_5_to_1": ratio(seconds, "phaseb5", "phaseb1"),
        "split_5_to_1": ratio(seconds, "split", "phaseb1"),
        "landings": ratio(seconds, "phaseb3", "landings"),
    }
    share = sorted(rates)[len(rates) // 2] / gemm
    per_s = T * rows / sorted(seconds["phaseb3"])[options.repeats // 2]
    show(
        f"Rollouts of {rows} rows, {T} steps, one thread, processor time, {options.repeats} repeats",
        [
            ("steps/s, three members / plain loop over GRUCell", told(against["plain"]), "≥ 3"),
            (f"GFLOP/s / this machine's product at ({rows}, {width}, {width})", f"{share:.2f} of {gemm:.0f}", "≥ 0.5"),
            ("five members on all rows / one", told(against["all_5_to_1"]), "≤ 5.5"),
            ("rollouts split over five members / one", told(against["split_5_to_1"]), "≤ 1.2"),
            ("steps/s, with landings / the networks alone", told(against["landings"]), ""),
            ("steps a second of processor time", f"{per_s:,.0f}", ""),
        ],
        {
            "benchmark": "rollout",
            "rows": rows,
            "steps_per_s": per_s,
            "of_gemm": share,
            "gemm_gflops": gemm,
            "difference_to_plain": difference,
            **against,
        },
        options.out,
    )


if __name__ == "__main__":
    main()
