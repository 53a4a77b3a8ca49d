"""The frozen encoder as others use it: batch and live agree, what is saved is what is loaded, statistics are frozen."""

import contextlib
import warnings
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch

from phaseb.episodes.actions import ActionScale
from phaseb.errors import DataError
from phaseb.latents.fit import fit_encoder_model
from phaseb.latents.learner import make_learner
from phaseb.latents.model import EncoderModel
from phaseb.latents.padding import episode_arrays
from phaseb.latents.standardise import Standardizer
from phaseb.nn.data_parallel import WorkerContext
from phaseb.runtime.storage import Store


def make_bundle(config, episodes, observation="both", scale=None, relevant=2):
    """A bundle of so many learned directions beside sensors; None: of those that matter."""
    learner = make_learner(config, episode_arrays(episodes, scale, observation), WorkerContext(0))
    for step in range(learner.num_steps):
        learner.step(step)
    with keeping(relevant) if relevant else contextlib.nullcontext():
        return fit_encoder_model(config, learner.encoder, episodes, scale)


def keeping(number):
    """As if the first learned directions mattered: the few episodes of a test show nothing."""

    def chosen(rows, seed):
        return torch.eye(rows.learned.shape[1], dtype=rows.learned.dtype)[:, :number]

    return mock.patch("phaseb.latents.projection.relevant_directions", chosen)


@pytest.fixture(scope="module")
def ragged(episodes):
    """Episodes of different lengths."""
    return [
        replace(e, state=e.state[: n + 1], frames=e.frames[: n + 1], actions=e.actions[:n], rewards=e.rewards[:n])
        for e, n in zip(episodes[:4], (40, 7, 1, 23), strict=True)
    ]


@pytest.mark.parametrize("observation", ["state", "frames", "both"])
def test_live_encoding_equals_batch_encoding(small_config, episodes, ragged, observation):
    bundle = make_bundle(small_config, episodes[:6], observation)
    batch = bundle.encode(ragged)
    assert batch.z.shape == (4, 41, bundle.num_dims)
    assert (bundle.spec.frame_shape is None) == (observation == "state")
    live = bundle.online(4)

    def look(t):
        at = [min(t, len(e)) for e in ragged]
        return {
            "state": np.stack([e.state[i] for e, i in zip(ragged, at, strict=True)]),
            "frames": np.stack([e.frames[i] for e, i in zip(ragged, at, strict=True)]),
        }

    z = [live.reset(look(0))] + [live.step(look(t)) for t in range(1, 41)]
    for i, episode in enumerate(ragged):
        for t in range(len(episode) + 1):
            np.testing.assert_allclose(z[t][i], batch.z[i, t], atol=2e-5)
    again = live.reset(look(0))  # nothing of the last episode is left
    np.testing.assert_allclose(again, batch.z[:, 0], atol=2e-5)


def test_stacking_sees_the_last_frames_and_no_others(small_config, episodes):
    bundle = make_bundle(small_config, episodes[:6], "frames")
    episode = episodes[0]
    changed = episode.frames.copy()
    changed[5] = 255 - changed[5]
    difference = np.abs(bundle.encode_episode(replace(episode, frames=changed)) - bundle.encode_episode(episode)).max(1)
    assert set(np.flatnonzero(difference > 1e-6)) == {5, 6, 7}


def test_episodes_out_of_the_object_store_are_encoded_without_a_word(small_config, episodes):
    """They cannot be written, which torch warns of once a process."""
    bundle, episode = make_bundle(small_config, episodes[:6], "frames"), episodes[0]
    read_only = replace(episode, state=episode.state.view(), frames=episode.frames.view())
    for array in (read_only.state, read_only.frames):
        array.flags.writeable = False
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            encoded = bundle.encode_episode(read_only)
    finally:
        torch.set_warn_always(False)
    np.testing.assert_array_equal(encoded, bundle.encode_episode(episode))
    upside_down = replace(episode, frames=np.ascontiguousarray(episode.frames[:, ::-1])[:, ::-1])
    np.testing.assert_array_equal(bundle.encode_episode(upside_down), encoded)


def test_standardised_on_the_training_episodes_and_frozen(small_config, episodes):
    bundle = make_bundle(small_config, episodes[:6])
    z = bundle.encode(episodes[:6]).z.reshape(-1, bundle.num_dims)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(z.std(0), 1, atol=1e-3)
    before = bundle.standardizer.mean.clone()
    bundle.encode(episodes[30:])
    assert torch.equal(before, bundle.standardizer.mean)


def test_a_dimension_without_variance_stays_finite():
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 5.0
    standardizer = Standardizer(3).fit(x, 1e-3)
    z = standardizer(x)
    assert torch.equal(z[:, 1], torch.zeros(100))
    assert torch.isfinite(standardizer(x + 1)).all()
    torch.testing.assert_close(standardizer.inverse(z), x)
    assert torch.isfinite(Standardizer(2).fit(torch.ones(5, 2), 1e-3)(torch.ones(5, 2))).all()


def test_trajectories_carry_what_episodes_know(small_config, ragged):
    scale = ActionScale(np.array([-2.0], np.float32), np.array([2.0], np.float32))
    ended = [replace(ragged[0], terminated=True, metrics={"mpl": 3.0}), *(replace(e, metrics={}) for e in ragged[1:])]
    out = make_bundle(small_config, ragged).encode(ended, scale)
    np.testing.assert_allclose(out.actions[0], ragged[0].actions / 2, atol=1e-6)
    assert out.terminals[0, 39] == 1
    assert out.terminals.sum() == 1
    assert out.lengths.tolist() == [40, 7, 1, 23]
    assert (out.actions[1, 7:] == 0).all()
    assert (out.z[1, 8:] == out.z[1, 7]).all()
    assert out.metrics["mpl"][0] == 3.0
    assert np.isnan(out.metrics["mpl"][1:]).all()
    assert out.lineage["tag/operator"] == ("x",) * 4


@pytest.mark.parametrize("observation", ["state", "frames", "both"])
def test_saved_and_loaded_is_the_same(small_config, episodes, tmp_path, observation):
    mute = [replace(e, actions=None) for e in episodes[:5]]
    bundle = make_bundle(small_config, mute, observation)
    store = Store.at(tmp_path)
    bundle.save(store)
    loaded = EncoderModel.load(store)
    a, b = bundle.encode(mute), loaded.encode(mute)
    np.testing.assert_array_equal(a.z, b.z)
    np.testing.assert_array_equal(a.actions, b.actions)
    np.testing.assert_array_equal(bundle.decode(a.z), loaded.decode(a.z))
    assert loaded.spec == bundle.spec


def test_an_altered_checkpoint_is_refused(small_config, episodes, tmp_path):
    store = Store.at(tmp_path)
    make_bundle(small_config, episodes[:3], "state").save(store)
    header = store.read_json("meta.json")
    header["meta"]["spec"]["hidden"] = 17
    store.write_json(header, "meta.json")
    with pytest.raises(DataError, match="altered"):
        EncoderModel.load(store)


def test_bad_episodes_are_named(small_config, episodes):
    with pytest.raises(DataError, match=episodes[0].id):
        make_bundle(small_config, episodes[:3], "frames").encode([replace(episodes[0], frames=None)])
    bundle = make_bundle(small_config, episodes[:3], "state")
    with pytest.raises(DataError, match=episodes[0].id):
        bundle.encode([replace(episodes[0], state=episodes[0].state[:, :2])])
    with pytest.raises(DataError, match="no actions"):
        bundle.encode([replace(episodes[0], actions=None)])
    with pytest.raises(DataError, match="no episodes"):
        bundle.encode([])
    with pytest.raises(ValueError, match="reset"):
        make_bundle(small_config, episodes[:3], "frames").online(1).step({"frames": episodes[0].frames[:1]})


def test_frames_that_tell_nothing_are_not_seen(small_config, episodes, tmp_path):
    """Noise beside sensors: the model is one of the sensors alone, whose latents are those without frames."""
    generator = np.random.default_rng(0)
    noisy = [replace(e, frames=generator.integers(0, 255, e.frames.shape, dtype=np.uint8)) for e in episodes[:12]]
    bundle = make_bundle(small_config, noisy, "both", relevant=None)
    assert bundle.spec.frame_shape is None
    assert bundle.num_dims == noisy[0].state.shape[1]
    bundle.save(Store.at(tmp_path))
    blind = [replace(e, frames=None) for e in noisy]
    z = EncoderModel.load(Store.at(tmp_path)).encode(blind).z
    np.testing.assert_array_equal(z, bundle.encode(noisy).z)
    np.testing.assert_allclose(z, make_bundle(small_config, blind, "state").encode(blind).z, atol=1e-6)


def test_frames_alone_have_no_state_to_decode(small_config, episodes):
    blind = [replace(e, state=None) for e in episodes[:3]]
    bundle = make_bundle(small_config, blind, "auto")
    assert bundle.spec.observation == "frames"
    with pytest.raises(DataError, match="decoder"):
        bundle.decode(bundle.encode(blind).z)
