"""The network: where things are seen, what whitening keeps, what shapes it takes."""

import numpy as np
import pytest
import torch

from phaseb.latents.encoder import REACH, Encoder, EncoderSpec, FrameNetwork, flatten_stack, stack_index


def looking_for_red(shape):
    """A frame network whose points all look for red."""
    torch.manual_seed(0)
    network = FrameNetwork(shape, 4, 2)
    with torch.no_grad():
        for layer in (network.first, network.second):
            layer.weight.zero_()
            layer.bias.zero_()
            layer.weight[:, 0, 1, 1] = 0.2
        network.scale.fill_(1 / 64)
        network.sharpness.fill_(80.0)
    return network


@pytest.mark.parametrize("side", [32, 64, 96])
def test_a_thing_is_located_finer_than_a_pixel_and_moves_as_it_moves(side):
    network = looking_for_red((side, side, 3))
    rows, columns = np.mgrid[:side, :side]
    located = []
    wanted = np.linspace(0.3, 0.7, 9) * side
    for x in wanted:
        picture = np.zeros((1, side, side, 3), dtype=np.uint8)
        blob = np.exp(-((columns - x) ** 2 + (rows - 0.25 * side) ** 2) / (0.06 * side) ** 2)
        picture[0, ..., 0] = (255 * blob).astype(np.uint8)
        with torch.no_grad():
            located.append(network(torch.from_numpy(picture))[0, [0, 2]].numpy())
    x, y = np.array(located).T
    shrink, cells = network.shrink, side // network.shrink

    def place(pixel):
        return REACH * (2 * (pixel - (shrink - 1) / 2) / shrink / (cells - 1) - 1)

    np.testing.assert_allclose(x, place(wanted), atol=0.04)  # a cell is 0.19 wide
    np.testing.assert_allclose(y, place(0.25 * side), atol=0.04)
    assert (np.diff(x) > 0).all()


def test_large_frames_are_averaged_down_exactly():
    network = FrameNetwork((130, 66, 3), 4, 2)
    frames = torch.randint(0, 255, (2, 130, 66, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    s = network.shrink
    cut = frames[:, : 130 // s * s, : 66 // s * s].float().permute(0, 3, 1, 2)
    expected = torch.nn.functional.avg_pool2d(cut, s).permute(0, 2, 3, 1)
    torch.testing.assert_close(network.pixels(frames), expected)


def test_whitening_changes_the_inputs_and_not_what_is_computed():
    torch.manual_seed(0)
    encoder = Encoder(EncoderSpec(5, (32, 32, 3), 4, 3, 16, 8, 5))
    stacked = torch.randn(200, 3, 15) @ torch.randn(15, 15)
    with torch.no_grad():
        before = encoder.fuse(stacked)
        encoder.condition(stacked + 1)
        encoder.condition(2 * stacked)
        after = encoder.fuse(stacked)
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)
    encoder.condition(stacked)
    white = (flatten_stack(stacked) - encoder.seen_mean) @ encoder.whitening
    covariance = torch.cov(white.T)
    assert covariance.diagonal().max() < 1.1
    assert (covariance - torch.diag(covariance.diagonal())).abs().max() < 0.3


def test_stack_index_repeats_the_first_observation():
    assert stack_index(torch.tensor([0, 1, 4]), 3).tolist() == [[0, 0, 0], [1, 0, 0], [4, 3, 2]]


@pytest.mark.parametrize("shape", [(8, 8, 1), (20, 33, 3), (200, 120, 4)])
def test_any_frame_shape(shape):
    encoder = Encoder(EncoderSpec(0, shape, 3, 1, 8, 4, 4))
    frames = torch.zeros((2, *shape), dtype=torch.uint8)
    encoder.fit_inputs(None, frames)
    assert torch.isfinite(encoder.fuse(encoder.features(frames)[:, None])).all()


def test_each_camera_has_filters_of_its_own_and_the_encoder_sees_all_of_them():
    torch.manual_seed(0)
    network = FrameNetwork((16, 16, 6), 4, 2)
    frames = torch.randint(0, 255, (3, 16, 16, 6), dtype=torch.uint8)
    other = frames.clone()
    other[..., 3:] = torch.randint(0, 255, (3, 16, 16, 3), dtype=torch.uint8)
    with torch.no_grad():
        changed = (network(frames) != network(other)).any(0)
    places, strengths = changed[:8].reshape(2, 4), changed[8:]
    assert not places[:, :2].any(), "the first camera's points do not see the second camera"
    assert not strengths[:2].any()
    assert places[:, 2:].any()
    assert strengths[2:].any()
    spec = EncoderSpec(2, (16, 16, 6), 5, 3, 8, 4, 2)
    assert spec.features_of_frame == network(frames).shape[1] == 12
    encoder = Encoder(spec)
    stacked = encoder.features(frames)[stack_index(torch.arange(3), 3)]
    assert encoder.fuse(stacked).shape == (3, 5)
