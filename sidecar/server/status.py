"""The HTTP status of an error of ours, the same at every route."""

from sidecar.messages import ErrorInfo

_STATUSES = {
    **dict.fromkeys(("unauthorized", "key_missing", "key_rejected"), 401),
    **dict.fromkeys(("not_found", "model_not_found"), 404),
    **dict.fromkeys(("rate_limited", "quota_exhausted"), 429),
    **dict.fromkeys(("overloaded", "provider_overloaded", "keyring_unavailable"), 503),
    **dict.fromkeys(("bad_request", "invalid_json", "model_no_tools", "model_no_vision"), 400),
    **dict.fromkeys(("context_too_long", "content_filtered"), 400),
    "cancelled": 499,  # nginx's number for a client that is gone; no client tries it again
    "busy": 409,
    "attachment_too_large": 413,
    "unsupported_media": 415,
    "storage_full": 507,
    "timeout": 504,
}


def http_status(info: ErrorInfo) -> int:
    """The HTTP status that says it best; a vendor's own where it blames the request."""
    if info.code in _STATUSES:
        return _STATUSES[info.code]
    if info.http_status is not None and 400 <= info.http_status < 500:
        return info.http_status
    return 500 if info.origin == "server" else 502
