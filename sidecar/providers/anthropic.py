"""How Anthropic wants to be addressed: its headers and where its API begins."""

from collections.abc import Mapping

from multidict import CIMultiDict

# The version of 2026-10-21 differs only in what it takes away, `temperature` and `top_p` for every
# model among it, and the other servers of this format know only the one before it.
API_VERSION = "2023-06-01"
LOGINS = frozenset(("x-api-key", "authorization"))


def api_key(key: str) -> Mapping[str, str]:
    return {"x-api-key": key}


def with_version(headers: Mapping[str, str]) -> Mapping[str, str]:
    """The person's headers, which may name another version, in any case."""
    versioned = CIMultiDict({"anthropic-version": API_VERSION})
    versioned.update(headers)
    return versioned


def api_root(base_url: str) -> str:
    """The vendor's SDKs want the address without `/v1`, and everybody else's with it."""
    return base_url if base_url.endswith("/v1") else f"{base_url}/v1"
