"""Check whether a whole run is up to date without importing torch or Ray.

Every stage's key follows from the config's sections, the external inputs and the stages before it. The run is up to
date where these, the lineage, the results and the page are what they were at the end of the last `phaseb run`.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from phaseb import __version__
from phaseb.config.root import Config
from phaseb.errors import DataError
from phaseb.pipeline.run_directory import OPERATIONAL, digest_of, section_digests
from phaseb.pipeline.stage import Stage
from phaseb.runtime.storage import Store

FILE = "fingerprint.json"
RESULTS = "results.json"
PAGE = "report/index.html"


def save_fingerprint(config: Config, stages: Sequence[Stage]) -> None:
    """Remember the state of a run whose report has just been written."""
    store = Store.at(config.run.dir)
    store.write_json({"key": _key(config, store, stages)}, FILE)


def cached_results(config: Config, stages: Sequence[Stage]) -> dict[str, Any] | None:
    """The results of a run that is up to date; None where anything changed or cannot be read."""
    store = Store.at(config.run.dir)
    if not all(store.exists(*name.split("/")) for name in (FILE, "run.json", RESULTS, PAGE)):
        return None
    try:
        saved = store.read_json(FILE)
        if not isinstance(saved, dict) or saved.get("key") != _key(config, store, stages):
            return None
        return dict(store.read_json(RESULTS))
    except (DataError, KeyError, TypeError):  # the stages say what is wrong with it
        return None


def cached_stages(config: Config) -> dict[str, dict[str, Any]]:
    """The entries of every finished stage in `run.json`, by name."""
    return dict(Store.at(config.run.dir).read_json("run.json")["stages"])


def _key(config: Config, store: Store, stages: Sequence[Stage]) -> str:
    sections = {name: digest for name, digest in section_digests(config).items() if name not in OPERATIONAL}
    sections["report"] = digest_of(config.report.model_dump(mode="json"))
    lineage = store.read_json("run.json")
    return digest_of(
        {
            "version": __version__,
            "format": lineage["format"],
            "sections": sections,
            "external_inputs": {stage.name: stage.external_inputs(config) for stage in stages},
            "stages": lineage["stages"],
            "reports": [hashlib.sha256(store.read_bytes(*name.split("/"))).hexdigest() for name in (RESULTS, PAGE)],
        }
    )
