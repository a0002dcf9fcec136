"""What the handlers work with."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from sidecar.chat.approvals import Approvals
from sidecar.chat.base import Attachments
from sidecar.chat.elicitations import Elicitations
from sidecar.chat.runs import Runs
from sidecar.credentials import Credentials, Keyring
from sidecar.live_settings import LiveSettings
from sidecar.mcp_host.entries import Entries
from sidecar.mcp_host.host import Host
from sidecar.paths import Folders
from sidecar.protocol.events import Event
from sidecar.providers.registry import Providers
from sidecar.store.history import History


@dataclass(frozen=True, slots=True)
class Services:
    """The rooms below, as app.py has built them."""

    instance: str
    runs: Runs
    attachments: Attachments
    history: History
    approvals: Approvals
    elicitations: Elicitations
    host: Host
    providers: Providers
    credentials: Credentials
    entries: Entries
    settings: LiveSettings
    keyring: Keyring
    folders: Folders
    publish: Callable[[Event], None]
    stop: Callable[[str], None]
    greeted: asyncio.Event
    """Set by the first hello."""
