"""Paths in settings: `~` is the home folder, and a URI that no storage opens is refused where it is set."""

import os
import re
from typing import Annotated

from pydantic import AfterValidator

SCHEMES = ("file", "s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss", "mock")
"""URI schemes that pyarrow opens."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def expanded(text: str) -> str:
    """A path with `~` or `~user` expanded; URIs and other paths stay as they are.

    Raises:
        ValueError: for a home folder that does not exist, or a URI of a scheme that is not opened.
    """
    if found := _SCHEME.match(text):
        _check_scheme(found[1].lower(), text[found.end() :])
        return text
    if not text.startswith("~"):
        return text
    path = os.path.expanduser(text)
    if path == text:
        raise ValueError(f"no home folder is known for {text.split('/')[0]}; write the path out")
    return path


def _check_scheme(scheme: str, rest: str) -> None:
    if scheme == "hf":
        name, _, revision = "/".join(rest.removeprefix("datasets/").split("/")[:2]).partition("@")
        of = f" --revision {revision}" if revision else ""
        raise ValueError(
            f"hf:// paths are not opened; run `hf download {name or 'OWNER/NAME'} --repo-type dataset{of} --local-dir "
            "FOLDER` first and give FOLDER"
        )
    if scheme in ("http", "https", "ftp"):
        raise ValueError(f"{scheme}:// paths are not opened; download the file first and give its path")
    if scheme not in SCHEMES:
        known = ", ".join(f"{one}://" for one in SCHEMES if one != "mock")
        raise ValueError(f"{scheme}:// is no storage that can be opened; give a path, or one of {known}")


PathText = Annotated[str, AfterValidator(expanded)]
"""A local path or a storage URI."""
