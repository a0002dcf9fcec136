"""The vendors of models: what they have, whether they answer, and their keys."""

from typing import Literal

from pydantic import Field

from sidecar.messages import ErrorInfo, Price, optional
from sidecar.protocol.base import Empty, EventModel, Inbound, Nothing, Request, Result


class ModelsListPayload(Inbound):
    refresh: bool = Field(default=False, description="Ask the vendors again.")


class ModelItem(Result):
    model: str = Field(description="`provider/model`, as `chat` takes it.")
    provider: str
    name: str
    context: int | None = Field(description="Tokens; null is unknown, as everywhere here.")
    max_output: int | None
    vision: bool | None
    tools: bool | None
    reasoning: bool | None
    price: Price | None = optional("Where a table has it.")


class ProviderFault(Result):
    provider: str
    code: str
    message: str


class ModelsListResult(Result):
    items: tuple[ModelItem, ...]
    errors: tuple[ProviderFault, ...]


class ModelsList(Request):
    result = ModelsListResult
    action: Literal["models.list"]
    payload: ModelsListPayload = ModelsListPayload.model_construct()


class ProviderPayload(Inbound):
    provider: str = Field(max_length=256)


class ProviderItem(Result):
    provider: str
    kind: str
    base_url: str | None
    key_set: bool


class LocalServer(Result):
    name: str = Field(description="The program's name, or the provider's.")
    base_url: str
    provider: str | None = Field(
        description="The provider that has it; null: the settings need one with this `base_url`."
    )
    models: tuple[str, ...] = Field(
        description="As `chat` takes them, or without a provider by the server's own ids."
    )


class ProvidersListResult(Result):
    items: tuple[ProviderItem, ...]
    found: tuple[LocalServer, ...] = Field(
        description="The model servers of this machine that answer now and need no key."
    )


class ProvidersList(Request):
    result = ProvidersListResult
    action: Literal["providers.list"]
    payload: Nothing = Nothing.model_construct()


class ProvidersTestResult(Result):
    provider: str
    ok: bool
    models: int | None = optional("How many models it offers.")
    duration_ms: int
    error: str | None = optional("What is wrong and what to do.")
    error_info: ErrorInfo | None = optional("The same for programs.")


class ProvidersTest(Request):
    result = ProvidersTestResult
    action: Literal["providers.test"]
    payload: ProviderPayload


class KeyItem(Result):
    provider: str
    set: bool
    source: Literal["session", "config", "keyring", "environment"] | None
    backend: str | None = Field(description="The keyring in use.")
    reason: str | None = optional("Why the keyring could not be asked, or the key not used.")


class KeysStatusResult(Result):
    items: tuple[KeyItem, ...]


class KeysStatus(Request):
    result = KeysStatusResult
    action: Literal["keys.status"]
    payload: Nothing = Nothing.model_construct()


class KeysSetPayload(Inbound):
    provider: str = Field(max_length=256)
    key: str = Field(min_length=1, max_length=4096, repr=False)
    persist: bool = Field(default=True, description="False: for this run of the sidecar only.")


class KeysSetResult(Result):
    source: Literal["session", "keyring"]
    shadowed_by: str | None = optional("A source that is looked at before this one.")


class KeysSet(Request):
    result = KeysSetResult
    action: Literal["keys.set"]
    payload: KeysSetPayload


class KeysDelete(Request):
    result = Empty
    action: Literal["keys.delete"]
    payload: ProviderPayload


class KeyChange(Result):
    provider: str


class KeysChanged(EventModel):
    type: Literal["keys.changed"] = "keys.changed"
    data: KeyChange = Field(description="A key was set or deleted.")
