# Copyright 2026 The EsViT-HF authors.
# SPDX-License-Identifier: Apache-2.0
"""Defines the errors of data that cannot be used, and makes them of those of `datasets`."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import HFValidationError

from modeling_esvit.errors import EsViTError
from modeling_esvit.storage.url_secrets import redact_urls


NO_ROWS = "corresponds to no data"  # what `datasets` says
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


class DataNotFoundError(EsViTError, FileNotFoundError):
    """Raised when there is no data where `data` points to."""


class DataOptionError(EsViTError, ValueError):
    """Raised when an option does not fit the data."""


class EmptySourceError(EsViTError, ValueError):
    """Raised when the data exists but holds no image."""


@contextmanager
def name_datasets_errors(
    data: str, missing: type[EsViTError] = DataNotFoundError, unusable: type[EsViTError] = DataOptionError
) -> Iterator[None]:
    """Repeats what `datasets` says of data that it cannot load, with what a user calls them and without secrets.

    Args:
        missing, unusable: The errors to raise.

    Raises:
        DataNotFoundError: There is none of this name.
        DataOptionError: It cannot be read, is a script, or has no such split or configuration.
        EmptySourceError: It has no rows.
    """
    import datasets

    try:
        yield
    except EsViTError:  # its message is complete
        raise
    except datasets.exceptions.DatasetGenerationError as error:
        reason = f"{data!r} cannot be read: {error.__cause__ or error}"
        raise unusable(redact_urls(reason + _advise(data, reason) + _advise_on_cache(error.__cause__))) from error
    except (FileNotFoundError, ConnectionError, HFValidationError) as error:
        reason = f"{data!r} is neither a file, a folder, a pattern nor a data set that can be loaded: {error}"
        raise missing(redact_urls(reason)) from error
    except (OSError, ValueError, RuntimeError) as error:
        if NO_ROWS in str(error):
            raise EmptySourceError(f"the data set {data!r} has no rows.") from error
        raise unusable(redact_urls(f"{data!r}: {error}{_advise_on_cache(error)}")) from error
    except (AttributeError, LookupError, TypeError) as error:  # for fields that nobody foresaw
        reason = f"what describes {data!r} is damaged ({type(error).__name__}: {error})"
        raise unusable(redact_urls(reason)) from error


def _advise(data: str, reason: str) -> str:
    """Says how to read zip files of the Hub, to which `datasets` gives the folder of the file as a class, and integers
    that the floats of other files cannot hold.
    """
    if "Integer value" in reason and "not in range" in reason:
        return ". Other files have floats in this column: write it as integers or strings in all of them"
    if "Invalid string class label" not in reason or os.path.exists(data):
        return ""
    return (
        ". If its images are in zip files, whose folders `datasets` does not take for classes, download it "
        f"(hf download {data} --repo-type dataset --local-dir FOLDER) and give FOLDER."
    )


def _advise_on_cache(error: BaseException | None) -> str:
    """Says what to do where `datasets` cannot write the tables that it makes of files, as in a container."""
    import datasets

    cache = str(datasets.config.HF_DATASETS_CACHE)
    if not isinstance(error, OSError) or error.errno not in UNWRITABLE:
        return ""
    place = str(error.filename or cache)
    if not (cache.startswith(place) or place.startswith(cache)):
        return ""
    return f". Tables of data sets are stored in {cache}: HF_DATASETS_CACHE names another folder"
