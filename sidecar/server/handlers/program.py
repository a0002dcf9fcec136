"""The program itself: a greeting, and how it is."""

from functools import partial

from sidecar import __version__
from sidecar.doctor import Patient
from sidecar.errors import UnsupportedProtocol
from sidecar.protocol.base import PROTOCOL_VERSION, SUPPORTED_VERSIONS
from sidecar.protocol.program import HelloPayload, HelloResult, Limits, Pending, ServerInfo
from sidecar.protocol.requests import CAPABILITIES
from sidecar.server.connection import Connection
from sidecar.server.handlers import providers
from sidecar.server.handlers.services import Services


def hello(services: Services, greeting: HelloPayload, connection: Connection) -> HelloResult:
    if greeting.protocol not in SUPPORTED_VERSIONS:
        spoken = ", ".join(map(str, SUPPORTED_VERSIONS))
        raise UnsupportedProtocol(
            f"This sidecar speaks protocol {spoken}, not {greeting.protocol}."
        )
    connection.subscribe(greeting.events, greeting.answers)
    services.greeted.set()
    return HelloResult(
        protocol=PROTOCOL_VERSION,
        server=ServerInfo(version=__version__, instance=services.instance),
        connection_id=connection.connection_id,
        capabilities=CAPABILITIES,
        limits=Limits(),
        runs=services.runs.running(),
        pending=Pending(
            approvals=services.approvals.pending(),
            elicitations=services.elicitations.pending(),
        ),
    )


def patient(services: Services) -> Patient:
    return Patient(
        settings=services.settings.now,
        folders=services.folders,
        keyring=services.keyring,
        credentials=services.credentials,
        test_provider=partial(providers.test, services.providers),
        count_conversations=services.history.count,
        servers_settled=services.host.settled,
        servers=services.host.statuses,
    )
