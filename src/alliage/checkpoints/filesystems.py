"""Where fsspec comes in: connecting to file systems, and what their errors mean."""

from __future__ import annotations

import os
from typing import Any

from alliage.errors import Problem, TransientError, UsageError, nearest

WEB = ("http", "https")
_S3 = ("s3", "s3a")
_WEB_ERRORS = "aiohttp.client_exceptions"
_NO_CREDENTIALS = (
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound",
    "NoAuthTokenError", "TokenRetrievalError", "DefaultCredentialsError",
)  # fmt: skip


def connect(url: str) -> tuple[Any, str]:
    """The file system of a URL, without any cache of listings, and the path in it."""
    from fsspec.config import conf  # type: ignore[import-untyped]
    from fsspec.core import url_to_fs  # type: ignore[import-untyped]

    protocol = url.partition("://")[0]
    options: dict[str, Any] = {"use_listings_cache": False}
    if protocol in _S3:
        given = conf.get("s3", {}).get("config_kwargs", {})
        options["config_kwargs"] = {"retries": {"max_attempts": 1}, **given}
    fs, path = url_to_fs(url, **options)
    if protocol in _S3:
        fs.retries = 3  # each of them tries twice, and s3fs squares the number for ranged reads
    return fs, path


def _cause(error: Exception) -> Exception:
    """What went wrong: fsspec calls anything that a web server does a missing file."""
    cause = error.__cause__
    if (
        isinstance(error, FileNotFoundError)
        and isinstance(cause, Exception)
        and (isinstance(cause, OSError | TimeoutError) or type(cause).__module__ == _WEB_ERRORS)
        and getattr(cause, "status", None) not in (404, 410)
    ):
        return cause
    return error


def explained(url: str, error: Exception, wait: float) -> Exception:
    """What to raise for a backend's error.

    Args:
        url: what was asked for.
        error: any exception of fsspec or of what it stands on.
        wait: seconds that were given to the request.

    Returns:
        FileNotFoundError, NotADirectoryError and FileExistsError as they are; a UsageError where a
        package is missing; else a TransientError: no credentials, no permission, no answer.
    """
    error = _cause(error)
    protocol = url.partition("://")[0]
    if isinstance(error, FileNotFoundError | NotADirectoryError | FileExistsError):
        return error
    from fsspec.registry import known_implementations  # type: ignore[import-untyped]

    kind, text = type(error).__name__, " ".join(str(error).split()).rstrip(".")
    if isinstance(error, ImportError):
        home = known_implementations.get(protocol, {}).get("class", "").partition(".")[0]
        package = "aiohttp" if protocol in WEB else home
        fix = f"Install it: pip install {package}" if package not in ("", "fsspec") else ""
        what = f"{protocol}:// needs a package that is not installed: {text}."
        return UsageError(Problem(url, what, fix))
    if isinstance(error, ValueError) and text.startswith("Protocol not known"):
        fix = nearest(protocol, ["s3", "gs", "abfs", "https", "memory", "file"])
        return UsageError(Problem(url, f"unknown protocol {protocol!r}.", fix))
    if kind in _NO_CREDENTIALS:
        return TransientError(Problem(url, f"no credentials: {text}.", _where_from(protocol)))
    if isinstance(error, PermissionError) or getattr(error, "status", None) in (401, 403):
        return TransientError(Problem(url, f"access refused: {text}.", _where_from(protocol)))
    if isinstance(error, TimeoutError) and not text:
        text = f"no answer within {wait:.0f} s"
    return TransientError(Problem(url, f"cannot be reached or read: {text} ({kind})."))


def _where_from(protocol: str) -> str:
    """Which credentials are used, for people who wonder why they do not fit."""
    variables = {
        "s3": ("AWS_ACCESS_KEY_ID", "AWS_PROFILE"),
        "gs": ("GOOGLE_APPLICATION_CREDENTIALS",),
        "abfs": ("AZURE_STORAGE_ACCOUNT_NAME",),
    }.get(protocol, ())
    used = next((name for name in variables if os.environ.get(name)), None)
    if used is not None:
        return f"The credentials come from {used}: they must allow it."
    if not variables:
        return ""
    text = f"{' and '.join(variables)} are not set: only what is stored on this machine counts."
    return f"{text} For a public bucket set FSSPEC_S3_ANON=true." if protocol == "s3" else text
