"""Every stage as a command of its own, from the files of the ones before it."""

from program import STAGES, lineage, strict_json, write_config


def test_one_by_one_they_make_the_same_run(finished, tmp_path, command, ray_up):
    config, run = write_config(tmp_path), tmp_path / "run"
    for stage in dict.fromkeys(name.partition("/")[0] for name in STAGES):
        if stage in ("negatives", "choice", "baselines", "closed_loop"):
            continue  # made by `phaseb trust`, `dynamics`, `policy` and `evaluate`
        told = command(stage, "--config", config, f"run.dir={run}", "--json")
        assert told.code == 0, told.err
        strict_json(told.out)
    told = command("report", "--config", config, f"run.dir={run}", "--json")
    assert told.code == 0, told.err
    whole, apart = lineage(finished.folder)["stages"], lineage(run)["stages"]
    for stage in ("collect", "encode", "bricks", "dynamics/gru", "synthesize"):
        assert apart[stage]["outputs"].keys() == whole[stage]["outputs"].keys()
    first, second = strict_json(finished.process.stdout), strict_json(told.out)
    assert second["arms"] == first["arms"]
    assert second["numbers"] == first["numbers"]


def test_a_stage_says_which_one_comes_first(tmp_path, command):
    told = command("trust", "--config", write_config(tmp_path), f"run.dir={tmp_path / 'run'}")
    assert told.code == 3
    first = "run `phaseb encode` with this config"
    assert told.complaint == [f"phaseb: trust needs encode, dynamics/gru, synthesize first: {first}"]
    assert not (tmp_path / "run" / "trust").exists()


def test_a_report_needs_results(tmp_path, command):
    told = command("report", tmp_path)
    assert told.code == 3
    assert told.complaint == [f"phaseb: {tmp_path} is not a run directory: it has no run.json"]


def test_what_changed_is_done_again_and_what_comes_before_is_kept(copied, finished, command, ray_up):
    words = ("evaluate", "--config", finished.config, f"run.dir={copied}", "evaluation.num_episodes=5")
    refused = command(*words)
    assert refused.code == 2
    assert "different: evaluation" in refused.err
    before = lineage(copied)["stages"]
    told = command(*words, "run.on_change=redo")
    assert told.code == 0, told.err
    after = lineage(copied)["stages"]
    assert after["evaluate"]["key"] != before["evaluate"]["key"]
    assert {n: s for n, s in after.items() if n != "evaluate"} == {n: s for n, s in before.items() if n != "evaluate"}
