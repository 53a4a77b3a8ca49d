"""The examples that need a finished run: a world model of one's own, and the notebook. (tests/unit has the others.)"""

import importlib
import shutil

import numpy as np
import pytest
from program import STAGES, lineage


def test_a_world_model_of_ones_own_is_held_against_the_built_in_one(pytestconfig, monkeypatch, finished):
    monkeypatch.syspath_prepend(pytestconfig.rootpath / "docs" / "examples")
    found = importlib.import_module("ridge_model").main(str(finished.folder))
    assert set(found) == {"built in", "ridge"}
    for numbers in found.values():
        assert 0 <= numbers["trust"] <= 1
        assert np.isfinite(list(numbers.values())).all()


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
