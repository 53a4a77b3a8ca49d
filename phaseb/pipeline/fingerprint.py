"""Whether a run is as it was when it was last told: asked before anything heavy is imported or started.

Every stage's key follows from the config's sections, the data outside and the stages before it. So where those, the
lineage, the results and the page are what they were at the end of the last `phaseb run`, every stage is up to date.
"""

import hashlib
from typing import Any

from phaseb import __version__
from phaseb.config.root import Config
from phaseb.episodes.sources import fingerprints
from phaseb.errors import DataError
from phaseb.pipeline.run_directory import OPERATIONAL, digest_of, section_digests
from phaseb.runtime.storage import Store

FILE = "standing.json"
RESULTS = "results.json"
PAGE = "report/index.html"


def note(config: Config) -> None:
    """Remember a run that has just been told."""
    store = Store.at(config.run.dir)
    store.write_json({"key": _key(config, store)}, FILE)


def told_results(config: Config) -> dict[str, Any] | None:
    """The results of a run to which nothing has changed since; None where anything has, or it cannot be said."""
    store = Store.at(config.run.dir)
    if not all(store.exists(*name.split("/")) for name in (FILE, "run.json", RESULTS, PAGE)):
        return None
    try:
        noted = store.read_json(FILE)
        if not isinstance(noted, dict) or noted.get("key") != _key(config, store):
            return None
        return dict(store.read_json(RESULTS))
    except (DataError, KeyError, TypeError):  # a run that cannot be read is left to the stages, which say what is wrong
        return None


def stages_told(config: Config) -> dict[str, dict[str, Any]]:
    """Metrics and seconds of every finished stage, in their order."""
    return dict(Store.at(config.run.dir).read_json("run.json")["stages"])


def _key(config: Config, store: Store) -> str:
    sections = {name: digest for name, digest in section_digests(config).items() if name not in OPERATIONAL}
    sections["report"] = digest_of(config.report.model_dump(mode="json"))
    lineage = store.read_json("run.json")
    return digest_of({
        "version": __version__, "format": lineage["format"], "sections": sections,
        "outside": fingerprints(config.episodes),
        "reuse": {part: _reused(path, part) for part, path in config.reuse.model_dump().items() if path},
        "stages": lineage["stages"],
        "told": [hashlib.sha256(store.read_bytes(*name.split("/"))).hexdigest() for name in (RESULTS, PAGE)],
    })  # fmt: skip


def _reused(path: str, part: str) -> str:
    """The digest of a part that is taken over, without importing torch for it."""
    return str(Store.at(path).read_json(part, "meta.json")["digest"])
