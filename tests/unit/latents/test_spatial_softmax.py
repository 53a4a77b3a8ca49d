"""The written-out gradients are those of autograd, for whole and for broken chunks."""

import pytest
import torch

from phaseb.latents.spatial_softmax import CHUNK, spatial_softmax


def drawn(pictures: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    seen = torch.randn(pictures, 30, 5, generator=g, dtype=torch.float64).requires_grad_()
    sharpness = (3 * torch.rand(5, generator=g, dtype=torch.float64)).requires_grad_()
    return seen, sharpness, torch.randn(2, 30, generator=g, dtype=torch.float64)


def recorded(seen: torch.Tensor, sharpness: torch.Tensor, place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    weight = torch.softmax(sharpness * seen, dim=1)
    return place @ weight, (weight * seen).sum(1)


@pytest.mark.parametrize("pictures", [1, CHUNK, 2 * CHUNK + 1])
def test_values_and_gradients_are_autograds(pictures):
    seen, sharpness, place = drawn(pictures)
    pulls = [torch.randn_like(part) for part in recorded(seen, sharpness, place)]
    found = []
    for function in (recorded, spatial_softmax):
        parts = function(seen, sharpness, place)
        pulled = sum((part * pull).sum() for part, pull in zip(parts, pulls, strict=True))
        found.append([*parts, *torch.autograd.grad(pulled, (seen, sharpness))])
    for expected, got in zip(*found, strict=True):
        torch.testing.assert_close(got, expected)


def test_finite_differences_agree():
    seen, sharpness, place = drawn(2, seed=1)
    assert torch.autograd.gradcheck(lambda x, s: spatial_softmax(x, s, place), (seen, sharpness))


def test_no_picture_has_no_features():
    located, strength = spatial_softmax(torch.zeros(0, 30, 5), torch.ones(5), torch.zeros(2, 30))
    assert located.shape == (0, 2, 5)
    assert strength.shape == (0, 5)
