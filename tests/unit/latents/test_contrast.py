"""InfoNCE against a plain double loop, and its masks."""

import math

import numpy as np
import pytest
import torch

from phaseb.latents.info_nce import Predictor, Segments, contrast, decorrelation


class Still(torch.nn.Module):
    """A predictor that leaves z where it is."""

    def forward(self, z, actions, horizon):
        return z

    def precision(self, horizon):
        return torch.ones(())


def by_hand(z, segments, k, within):
    """-log softmax of -|z - z'|²/2 for every anchor, written out."""
    _, B, L, _ = z.shape
    total, count = 0.0, 0
    rows = [(b, t) for b in range(B) for t in range(L)]
    name = {(b, t): (int(segments.episode[0, b, t]), int(segments.step[0, b, t])) for b, t in rows}
    for b in range(B):
        for t in range(L - k):
            if not (segments.valid[0, b, t] and segments.valid[0, b, t + k]):
                continue
            scores, right = [], None
            for c, s in rows:
                positive = (c, s) == (b, t + k)
                if not positive and (name[c, s] == name[b, t + k] or not segments.valid[0, c, s]):
                    continue
                if within and name[c, s][0] != name[b, t][0]:
                    continue
                score = -0.5 * float(((z[0, b, t] - z[0, c, s]) ** 2).sum())
                scores.append(score)
                right = score if positive else right
            total += math.log(sum(math.exp(s) for s in scores)) - right
            count += 1
    return total / count


@pytest.mark.parametrize("k", [1, 3])
def test_equals_the_double_loop(k):
    torch.manual_seed(0)
    z = torch.randn(1, 3, 5, 2)
    first = torch.tensor([0, 4, 2])
    segments = Segments(
        episode=torch.tensor([7, 9, 7])[None, :, None].expand(1, 3, 5),  # episode 7 is there twice and overlaps
        step=(first[:, None] + torch.arange(5))[None],
        valid=torch.tensor([[True] * 5, [True] * 4 + [False], [True] * 5])[None],
    )
    losses, _ = contrast(z, torch.zeros(1, 3, 5, 1), segments, Still(), (k,))
    assert float(losses["contrast"]) == pytest.approx(by_hand(z, segments, k, within=False), rel=1e-4)
    assert float(losses["contrast_within"]) == pytest.approx(by_hand(z, segments, k, within=True), rel=1e-4)


def test_perfect_latents_have_no_loss_and_noise_has_the_log_of_the_candidates():
    G, B, L = 1, 4, 6
    place = torch.arange(B * L).float().view(G, B, L, 1)
    segments = Segments(
        torch.arange(B)[None, :, None].expand(G, B, L), torch.arange(L).expand(G, B, L), torch.ones(G, B, L).bool()
    )

    class Next(Still):
        def forward(self, z, actions, horizon):
            return z + 50.0

    losses, accuracy = contrast(50 * place, torch.zeros(G, B, L, 0), segments, Next(), (1,))
    assert float(losses["contrast"]) < 1e-6
    assert float(accuracy) == 1.0
    losses, _ = contrast(0 * place, torch.zeros(G, B, L, 0), segments, Still(), (1,))
    assert float(losses["contrast"]) == pytest.approx(math.log(B * L), rel=1e-5)
    assert float(losses["contrast_within"]) == pytest.approx(math.log(L), rel=1e-5)


def test_horizons_longer_than_a_segment_are_left_out():
    segments = Segments(torch.zeros(1, 1, 3).long(), torch.arange(3).view(1, 1, 3), torch.ones(1, 1, 3).bool())
    z = torch.randn(1, 1, 3, 2, generator=torch.Generator().manual_seed(0))
    short, _ = contrast(z, torch.zeros(1, 1, 3, 0), segments, Still(), (1,))
    both, _ = contrast(z, torch.zeros(1, 1, 3, 0), segments, Still(), (1, 8))
    assert torch.equal(short["contrast"], both["contrast"])


def test_spread_is_the_mean_squared_correlation():
    rng = np.random.default_rng(0)
    z = rng.standard_normal((2, 200, 3))
    z[..., 2] = z[..., 0] + 0.1 * z[..., 2]
    expected = np.mean([np.square(np.corrcoef(x.T)[~np.eye(3, dtype=bool)]).mean() for x in z])
    got = decorrelation(torch.from_numpy(z).float(), torch.ones(2, 200).bool())
    assert float(got) == pytest.approx(expected, rel=1e-4)


def test_predictor_has_a_map_and_a_precision_for_every_horizon():
    predictor = Predictor(3, 2, 2)
    z, actions = torch.randn(5, 3), torch.randn(5, 2)
    with torch.no_grad():
        predictor.move[1].weight.zero_()
        predictor.move[1].bias.fill_(1.0)
    assert torch.equal(predictor(z, actions, 1), z + 1)
    assert not torch.equal(predictor(z, actions, 0), z + 1)
    assert predictor.precision(0).item() > 0
