"""Defaults, file and words make one config; what is wrong is told all at once, each with its place and its cure."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from phaseb.config.load import dotted_paths, dump_config, load_config, merge
from phaseb.config.root import Config
from phaseb.errors import ConfigError

REPOSITORY = Path(__file__).parents[3]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def faults(*words: str, path: Path | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, words)
    return str(caught.value).splitlines()


def test_words_win_over_the_file_and_the_file_over_the_defaults(tmp_path):
    path = write(tmp_path, "mine.yaml", "policy: {num_steps: 7, width: 16}\n")
    config = load_config(path, ["policy.num_steps=9"])
    assert (config.policy.num_steps, config.policy.width) == (9, 16)
    assert config.policy.batch_size == Config().policy.batch_size


def test_a_later_word_wins_over_an_earlier_one():
    assert load_config(None, ["run.seed=1", "run.seed=2"]).run.seed == 2


def test_a_base_is_read_first_and_overridden_however_deep(tmp_path):
    write(tmp_path, "first.yaml", "run: {seed: 1}\npolicy: {num_steps: 5, width: 16}\n")
    write(tmp_path, "second.yaml", "base: first.yaml\npolicy: {num_steps: 6}\n")
    path = write(tmp_path, "third.yaml", "base: second.yaml\nrun: {seed: 3}\n")
    config = load_config(path)
    assert (config.run.seed, config.policy.num_steps, config.policy.width) == (3, 6, 16)


def test_a_word_may_hold_a_section_or_a_list():
    config = load_config(None, ["dynamics.gru.weights={trust: 0.1, var: 0.2}", "arms.names=[real_only]"])
    assert (config.dynamics.gru.weights.trust, config.dynamics.gru.weights.var) == (0.1, 0.2)
    assert config.arms.names == ("real_only",)


def test_the_run_directory_is_named_after_the_file(tmp_path):
    assert load_config(write(tmp_path, "mine.yaml", "")).run.dir == "runs/mine"
    assert load_config().run.dir == "runs/default"
    assert load_config(None, ["run.dir=elsewhere"]).run.dir == "elsewhere"


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.floats(0, 1), st.integers(1, 10**6), st.text("abc/:-é ", min_size=1))
def test_a_dumped_config_reads_back_as_itself(seed, share, steps, folder):
    arms = {"fixed_weight": {"share": share}}
    config = Config.model_validate({"run": {"seed": seed, "dir": folder}, "arms": arms, "policy": {"num_steps": steps}})
    assert Config.model_validate(yaml.safe_load(dump_config(config))) == config


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), st.dictionaries(st.sampled_from("xyz"), st.integers())),
    st.dictionaries(st.sampled_from("abc"), st.dictionaries(st.sampled_from("xyz"), st.integers())),
)
def test_merging_keeps_what_is_not_changed(base, change):
    merged = merge(base, change)
    for section in {**base, **change}:
        for key in {**base.get(section, {}), **change.get(section, {})}:
            wanted = change.get(section, {}).get(key, base.get(section, {}).get(key))
            assert merged[section][key] == wanted


@pytest.mark.parametrize(
    ("word", "suggestion"),
    [
        ("dynamics.gru.num_stps=3", "dynamics.gru.num_steps"),
        ("wrld_model.num_steps=3", "dynamics.gru.num_steps"),
        ("policy.offlin.cql_weight=1", "policy.offline.cql_weight"),
        ("seed=3", "run.seed"),
        ("sigmaz=3", "judge.sigmas"),
        ("world_model.num_steps=3", "dynamics.gru.num_steps"),  # settings that were renamed
        ("dynamics.gru.look_ahead=3", "dynamics.gru.action_lookahead"),
        ("policy.transitions.steps=3", "dynamics.gp.steps"),
    ],
)
def test_an_unknown_key_is_told_with_the_whole_path_of_the_nearest(word, suggestion):
    (line,) = faults(word)
    assert line.startswith(f"command line ({word}): unknown key ")
    assert line.endswith(f"; did you mean {suggestion!r}?")


def test_what_resembles_nothing_gets_no_suggestion():
    (line,) = faults("xyzzy=3")
    assert line == "command line (xyzzy=3): unknown key xyzzy"


def test_every_fault_is_told_at_once_with_file_path_and_value(tmp_path):
    path = write(tmp_path, "bad.yaml", "policy: {discount: 7}\nenvironment: {observation: smell}\nextra: 1\n")
    lines = faults("run.seed=-1", "nonsense", "arms.num_seeds=[", path=path)
    told = "\n".join(lines)
    assert len(lines) == 6
    assert f"{path}: policy.discount = 7: Input should be less than 1" in told
    assert f"{path}: environment.observation = 'smell': Input should be 'both', 'state' or 'frames'" in told
    assert f"{path}: unknown key extra" in told
    assert "command line (run.seed=-1): run.seed = -1: Input should be greater than or equal to 0" in told
    assert "'nonsense' is not of the form key.path=value" in told
    assert "arms.num_seeds: the value '[' cannot be read; quote it" in told


def test_a_fault_of_a_whole_section_does_not_repeat_the_section():
    (line,) = faults("episodes.source=npz")
    assert line == "command line (episodes.source=npz): episodes: source=npz needs episodes.path=FILE"


def test_a_value_where_a_section_is_wanted():
    assert faults("policy=3")[0].startswith("command line (policy=3): policy = 3: Input should be a valid dictionary")
    assert faults("policy=3", "policy.num_steps=4")[0] == "policy.num_steps: 'policy' is a value, not a section"


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf"])
def test_no_number_of_a_config_is_infinite(value):
    assert "finite" in faults(f"policy.actor_lr={value}")[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("policy: {width: 8}\npolicy: {num_steps: 3}\n", "is not YAML: 'policy' stands twice"),
        ("policy:\n  width: 8\n  width: 9\n", "'width' stands twice"),
        ("a: [", "is not YAML"),
        ("- 1\n- 2\n", "must hold `section: …` mappings, not a list"),
        ("\x00", "is not YAML"),
    ],
)
def test_a_file_that_is_no_config(tmp_path, text, message):
    (line,) = faults(path=write(tmp_path, "bad.yaml", text))
    assert str(tmp_path / "bad.yaml") in line
    assert message in line


def test_a_file_that_is_not_there(tmp_path):
    (line,) = faults(path=tmp_path / "none.yaml")
    assert line == f"cannot read config {tmp_path / 'none.yaml'}: No such file or directory"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").glob("**/*.yaml")), ids=lambda p: p.name)
def test_every_shipped_config_is_valid(path):
    config = load_config(path)
    assert config.run.dir == f"runs/{path.stem}"
    assert path.read_text(encoding="utf-8").startswith("#"), "says what it is for in its first line"


def test_every_setting_is_described():
    undescribed = [path for path, field in dotted_paths().items() if not field.description]
    assert undescribed == []


def test_generators_that_nobody_defined_are_named():
    (line,) = faults("arms.trust_weighted.generator=lstm")
    assert "no generator is called 'lstm'; there are gru, gp" in line
    config = load_config(None, ["dynamics.plugins.own.model=a:B", "arms.trust_weighted.generator=own"])
    assert (config.stored_generators, config.branched_generators) == (("gru",), ("own",))
    assert config.generators == ("gru", "own")
    assert load_config(None, ["judge.generators=[gp]", "arms.names=[real_only]"]).generators == ("gru", "gp")


@pytest.mark.parametrize(
    "text", ["my #1.npz", "a: b.npz", "[x].npz", "*.npz", "2024", "2024-01-01", "0x10", "null", "it's", "a=b", "true"]
)
def test_a_word_of_text_is_taken_as_it_stands(text):
    assert load_config(None, [f"run.dir={text}"]).run.dir == text
    assert load_config(None, [f'run.dir="{text}"']).run.dir == text


def test_a_comment_that_would_cut_a_text_short_is_refused():
    with pytest.raises(ConfigError, match=r"episodes\.columns\.images: the value 'top #2' cannot be read; quote it"):
        load_config(None, ["episodes.columns.images=top #2"])
    assert load_config(None, ["policy.num_steps=7 # seven"]).policy.num_steps == 7
    assert load_config(None, ["resources.address=null"]).resources.address is None
