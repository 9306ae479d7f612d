# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Lists the licences that the Hub knows by an identifier, and checks what a card says of its licence.

The Hub refuses others only once everything else was sent to it.
"""

import difflib
from typing import Any, NamedTuple

from modeling_esvit.storage.url_secrets import strip_secrets


OTHER = "other"
CREATIVE_COMMONS = (
    *("cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0"),
    *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0"),
    *("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
)
LICENSES = (
    *("apache-2.0", "mit", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause"),
    *("bsd-3-clause-clear", "c-uda", *CREATIVE_COMMONS, "cdla-sharing-1.0", "cdla-permissive-1.0"),
    *("cdla-permissive-2.0", "wtfpl", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2"),
    *("agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "isc"),
    *("h-research", "intel-research", "lppl-1.3c", "ms-pl", "apple-ascl", "apple-amlr", "mpl-2.0", "odc-by", "odbl"),
    *("openmdw-1.0", "openrail", "openrail++", "bigscience-openrail-m", "creativeml-openrail-m"),
    *("bigcode-openrail-m", "bigscience-bloom-rail-1.0", "osl-3.0", "postgresql", "ofl-1.1", "ncsa", "unlicense"),
    *("zlib", "pddl", "deepfloyd-if-license", "fair-noncommercial-research-license", "llama2", "llama3", "llama3.1"),
    *("llama3.2", "llama3.3", "llama4", "gemma", "unknown", OTHER),
)


class License(NamedTuple):
    """Holds a licence by its identifier on the Hub; one of OTHER has a name and a link of its own."""

    identifier: str
    name: str | None = None
    link: str | None = None

    def describe(self) -> dict[str, Any]:
        """Returns the fields of a card's metadata."""
        return {"license": self.identifier, "license_name": self.name, "license_link": self.link}


def find_license_problem(data: dict[str, Any]) -> str | None:
    """Returns in words what is wrong with the licence in the metadata of a card; None if nothing is.

    A card may name none.
    """
    if data.get("license") is None:
        return None
    given = data["license"] if isinstance(data["license"], list) else [data["license"]]
    for name in given:
        if name not in LICENSES:
            close = difflib.get_close_matches(str(name).lower(), LICENSES, n=3)
            instead = f"did you mean {' or '.join(close)}? " if close else ""
            return (
                f"the Hub knows no license {name!r}; {instead}Its names are at "
                f"https://huggingface.co/docs/hub/repositories-licenses; for any that is not there, use {OTHER!r} with "
                "a license_name and a license_link."
            )
    if OTHER in given and not data.get("license_name"):
        return f"a license {OTHER!r} needs a license_name (and a license_link, a URL or a file such as LICENSE)."
    link = str(data.get("license_link") or "")
    if not link.startswith(strip_secrets(link)):
        return "the license_link has a login in it, which everybody would read: give an address without."
    return None
