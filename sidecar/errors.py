"""Everything that can go wrong in a way a person can act on. Each class carries its wire code.

    SidecarError
    ├── ConfigInvalid, PortInUse, AlreadyRunning        start-up
    ├── Refused: BadHost, OriginNotAllowed, Unauthorized   before the upgrade, as HTTP
    ├── RequestError                                    the client's frame cannot be served
    │   ├── BadRequest, InvalidJson, UnknownAction, UnsupportedProtocol, HelloRequired
    │   ├── NotFound, Conflict, Busy, Overloaded, DuplicateRequest
    │   └── AttachmentTooLarge, UnsupportedMedia
    ├── KeyringUnavailable, StorageError: StorageFull, StorageCorrupt, StorageNewer
    ├── ProviderError                                   a model's vendor, or the way to it
    │   ├── KeyMissing, KeyRejected, QuotaExhausted, RateLimited, ProviderOverloaded
    │   ├── ProviderFailed, ProviderBadResponse, ModelNotFound, ModelNoTools
    │   ├── ModelNoVision, ContextTooLong, ContentFiltered
    │   └── NetworkError: NetworkUnreachable, DnsFailed, ProviderTimeout, TlsUntrusted,
    │                     ProxyAuthRequired, LocalServerDown
    └── McpError                                        an MCP server or one of its tools
        ├── McpStartFailed, McpCrashed, McpTimeout, McpAuthRequired, McpNeedsApproval,
        │   McpInvalidResult
        └── ToolNotFound

Errors hold plain values, so this file imports nothing. An expected failure is one log line and
one frame; whatever is not in this tree is a bug and is `internal` on the wire.
"""

from typing import ClassVar, Literal

Origin = Literal["client", "server", "provider", "mcp", "network"]


class SidecarError(Exception):
    """`str(error)` is a sentence for a person: what happened and what to do."""

    code: ClassVar[str] = "internal"
    origin: ClassVar[Origin] = "server"
    can_retry: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        provider: str | None = None,
        server: str | None = None,
        http_status: int | None = None,
        detail: str | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.provider = provider
        self.server = server
        self.http_status = http_status
        self.detail = detail


class ConfigInvalid(SidecarError):
    code = "config_invalid"


class PortInUse(SidecarError):
    code = "port_in_use"


class AlreadyRunning(SidecarError):
    code = "already_running"


class KeyringUnavailable(SidecarError):
    code = "keyring_unavailable"


class StorageError(SidecarError):
    """What was said holds until the program ends, and could not be written down."""

    code: ClassVar[str] = "storage_locked"


class StorageFull(StorageError):
    code = "storage_full"


class StorageCorrupt(StorageError):
    code = "storage_corrupt"


class StorageNewer(StorageError):
    code = "storage_newer"


class Refused(SidecarError):
    """A request refused before any upgrade; `status` is the HTTP answer."""

    origin = "client"
    status: ClassVar[int] = 400


class BadHost(Refused):
    code = "bad_host"
    status = 421


class OriginNotAllowed(Refused):
    code = "origin_not_allowed"
    status = 403


class Unauthorized(Refused):
    code = "unauthorized"
    status = 401


class RequestError(SidecarError):
    origin = "client"


class BadRequest(RequestError):
    code = "bad_request"


class InvalidJson(RequestError):
    code = "invalid_json"


class UnknownAction(RequestError):
    code = "unknown_action"


class UnsupportedProtocol(RequestError):
    code = "unsupported_protocol"


class HelloRequired(RequestError):
    code = "hello_required"


class DuplicateRequest(RequestError):
    code = "duplicate_request"


class NotFound(RequestError):
    code = "not_found"


class Conflict(RequestError):
    code = "conflict"


class Busy(RequestError):
    code = "busy"
    can_retry = True


class Overloaded(RequestError):
    code = "overloaded"
    can_retry = True


class AttachmentTooLarge(RequestError):
    code = "attachment_too_large"


class UnsupportedMedia(RequestError):
    code = "unsupported_media"


class ProviderError(SidecarError):
    """A vendor answered with an error of a kind that has no class of its own."""

    code = "provider_error"
    origin: ClassVar[Origin] = "provider"


class ProviderFailed(ProviderError):
    """The vendor's own fault (5xx): worth another try."""

    can_retry = True


class KeyMissing(ProviderError):
    code = "key_missing"
    origin: ClassVar[Origin] = "client"


class KeyRejected(ProviderError):
    code = "key_rejected"


class QuotaExhausted(ProviderError):
    code = "quota_exhausted"


class RateLimited(ProviderError):
    code = "rate_limited"
    can_retry = True


class ProviderOverloaded(ProviderError):
    code = "provider_overloaded"
    can_retry = True


class ProviderBadResponse(ProviderError):
    code = "provider_bad_response"
    can_retry = True


class ModelNotFound(ProviderError):
    code = "model_not_found"


class ModelNoTools(ProviderError):
    code = "model_no_tools"


class ModelNoVision(ProviderError):
    code = "model_no_vision"


class ContextTooLong(ProviderError):
    code = "context_too_long"


class ContentFiltered(ProviderError):
    code = "content_filtered"


class NetworkError(ProviderError):
    code = "network_unreachable"
    origin: ClassVar[Origin] = "network"
    can_retry = True


class NetworkUnreachable(NetworkError):
    pass


class DnsFailed(NetworkError):
    code = "dns_failed"


class ProviderTimeout(NetworkError):
    code = "timeout"


class TlsUntrusted(NetworkError):
    code = "tls_untrusted"
    can_retry = False


class ProxyAuthRequired(NetworkError):
    code = "proxy_auth_required"
    can_retry = False


class LocalServerDown(NetworkError):
    code = "local_server_down"


class McpError(SidecarError):
    origin = "mcp"


class McpStartFailed(McpError):
    code = "mcp_start_failed"


class McpCrashed(McpError):
    code = "mcp_crashed"


class McpTimeout(McpError):
    code = "mcp_timeout"


class McpAuthRequired(McpError):
    code = "mcp_auth_required"


class McpNeedsApproval(McpError):
    """A client added or changed it, and no person has agreed to what it starts."""

    code = "mcp_needs_approval"


class McpInvalidResult(McpError):
    code = "mcp_invalid_result"


class ToolNotFound(McpError):
    code = "tool_not_found"
