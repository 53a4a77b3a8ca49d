"""The examples that need a finished run: a world model of one's own, and the notebook. (tests/unit has the others.)"""

import os
import shutil
import sys

import numpy as np
import pytest
from program import STAGES, lineage, phaseb, strict_json

import phaseb as library

pytestmark = pytest.mark.nightly


def test_a_world_model_of_ones_own_takes_the_place_of_the_built_in_one(pytestconfig, monkeypatch, finished, copied):
    examples = str(pytestconfig.rootpath / "docs" / "examples")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([examples, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    arms = ("trust_weighted", "fixed_weight", "bounds_filter")
    own = (
        "dynamics.plugins.ridge.model=ridge_model:RidgeModel",
        *(f"arms.{arm}.generator=ridge" for arm in arms),
        f"run.dir={copied}",
        "run.on_change=redo",
    )
    done = phaseb("run", "--config", finished.config, *own, "--json", cwd=copied.parent)
    assert done.returncode == 0, done.stderr
    before, after = lineage(finished.folder)["stages"], lineage(copied)["stages"]
    changed = {name for name in after if name not in before or after[name]["key"] != before[name]["key"]}
    assert changed >= {"dynamics/ridge", "synthesize", "judge"}
    assert after["encode"] == before["encode"]
    gone = {"dynamics/gru", "dynamics/gp", "choice"}
    assert before.keys() - after.keys() == gone, "of what no arm uses nothing is left"
    judges = strict_json((copied / "judges.json").read_text())
    assert set(judges) == {"ridge"}, "no other generator is fitted"
    assert 0 <= judges["ridge"]["branched"]["numbers"]["judge_auc"] <= 1
    judged = judges["ridge"]["numbers"]
    assert np.isfinite([judged["judge_auc"], judged["rmse"], judged["std_ratio"]]).all()
    monkeypatch.syspath_prepend(examples)
    model = library.WorldModel.load(copied)
    assert type(model.generator.model).__name__ == "RidgeModel"
    assert (model.name, model.uncertainty_scale) == ("ridge", 0.0), "it never says that it is uncertain"
    assert after["dynamics/ridge"]["metrics"]["uncertainty_discount"] == 0.0
    assert model.rollout(np.zeros((3, model.latent_size)), np.zeros((3, 5, model.action_size))).z.shape[:2] == (3, 6)


def test_a_run_goes_on_without_a_generator_that_cannot_be_rolled_out(pytestconfig, monkeypatch, finished, copied):
    (copied.parent / "broken.py").write_text(
        "from ridge_model import RidgeModel\n"
        "class Broken(RidgeModel):\n"
        "    def step(self, z, *rest):\n"
        "        return super().step(z / 0, *rest)\n"
    )
    paths = [str(copied.parent), str(pytestconfig.rootpath / "docs" / "examples"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    own = (
        "dynamics.plugins.broken.model=broken:Broken",
        "arms.trust_weighted.generator=broken",
        "arms.fixed_weight.generator=broken",
        "arms.fixed_weight.rollouts=stored",
        f"run.dir={copied}",
        "run.on_change=redo",
    )
    done = phaseb("run", "--config", finished.config, *own, "--json", cwd=copied.parent)
    assert done.returncode == 0, done.stderr
    assert "generator broken is left out: broken:Broken: z of step 0 has NaN or Inf" in done.stderr
    assert "failed" in lineage(copied)["stages"]["dynamics/broken"]["metrics"]
    assert "synthetic data was not shown to help" in strict_json(done.stdout)["verdict"].lower()
    assert "broken is left out: broken:Broken" in (copied / "report" / "index.html").read_text()


def test_a_policy_is_searched_in_a_generator_by_gymnasium_s_api(pytestconfig, monkeypatch, finished):
    monkeypatch.syspath_prepend(str(pytestconfig.rootpath / "docs" / "examples"))
    import train_in_generator

    values = train_in_generator.main(str(finished.folder), "gp", num_trials=5, num_episodes=2)
    assert len(values) == 5
    assert max(values) > min(values)
    sys.modules.pop("train_in_generator")


def test_a_generator_s_steps_have_the_gate_s_trust(finished):
    from phaseb.stages.generator_environment import GeneratorEnv

    env = GeneratorEnv(str(finished.folder), "gru", max_steps=5)
    env.reset(seed=0)
    infos = [env.step(env.action_space.sample())[-1] for _ in range(5)]
    assert all(0 <= info["trust"] <= 1 and info["uncertainty"] >= 0 for info in infos)


def test_the_notebook_runs_from_top_to_bottom(pytestconfig, finished, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    shutil.copytree(finished.folder, tmp_path / "runs" / "tiny")
    shutil.copy(finished.config, tmp_path / "tiny.yaml")
    notebook = nbformat.read(pytestconfig.rootpath / "docs" / "notebooks" / "first-look.ipynb", as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "parameters" in code[0].metadata.tags
    code[0].source = 'CONFIG = "tiny.yaml"'
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    told = ["".join(output.get("text", "") for output in cell.outputs) for cell in code]
    assert any("Synthetic data" in text for text in told)
    assert lineage(tmp_path / "runs" / "tiny")["stages"].keys() >= set(STAGES)
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
