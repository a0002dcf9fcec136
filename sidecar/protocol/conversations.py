"""What was said before: conversations, their messages, and what a person does with them."""

from typing import Literal

from pydantic import Field

from sidecar.messages import JsonObject, Message, Usage, optional
from sidecar.protocol.base import EventModel, Inbound, Request, Result
from sidecar.protocol.chat import Params, ToolChoice

CONVERSATIONS_PAGE = 100
MESSAGES_PAGE = 200
HITS = 100


class Conversation(Result):
    conversation_id: str
    title: str = Field(description="The first words, until a model or a person has a better one.")
    model: str | None = Field(description="The last one used; what a chat without a model gets.")
    created_at: str
    updated_at: str
    message_count: int = Field(description="Over all branches.")
    pinned: bool
    archived: bool
    usage: Usage = Field(description="The sum over its messages.")
    system_prompt: str | None = optional("Its own, in place of the one in the settings.")
    params: JsonObject | None = optional("Its own, as a chat's, in place of those in the settings.")
    tools: JsonObject | None = optional("As a chat's; what a chat without `tools` gets.")
    run_id: str | None = optional("The run that goes on in it.")


# ---- reading ----


class ConversationsListPayload(Inbound):
    cursor: str | None = Field(default=None, max_length=256, description="Of the page before.")
    limit: int = Field(default=50, ge=1, le=CONVERSATIONS_PAGE)
    archived: bool = Field(default=False, description="The archived ones instead of the others.")


class ConversationsListResult(Result):
    items: tuple[Conversation, ...] = Field(description="Pinned ones first, then the newest.")
    next_cursor: str | None = Field(description="Null on the last page.")


class ConversationsList(Request):
    result = ConversationsListResult
    action: Literal["conversations.list"]
    payload: ConversationsListPayload = ConversationsListPayload.model_construct()


class ConversationsGetPayload(Inbound):
    conversation_id: str = Field(max_length=64)
    before: str | None = Field(
        default=None, max_length=64, description="A message_id: only what is older."
    )
    limit: int = Field(default=MESSAGES_PAGE, ge=1, le=MESSAGES_PAGE)


class ConversationsGetResult(Result):
    conversation: Conversation
    messages: tuple[Message, ...] = Field(
        description="Of all branches, oldest first; `parent_id` says what follows what."
    )
    has_more: bool = Field(description="True when there are older ones.")
    head: str | None = Field(description="The last message of the branch in use.")


class ConversationsGet(Request):
    result = ConversationsGetResult
    action: Literal["conversations.get"]
    payload: ConversationsGetPayload


class ConversationsSearchPayload(Inbound):
    q: str = Field(min_length=1, max_length=1024, description="Words; each may be a beginning.")
    limit: int = Field(default=20, ge=1, le=HITS)


class SearchHit(Result):
    conversation_id: str
    message_id: str | None = Field(description="Null when the title was found.")
    title: str
    snippet: str
    created_at: str


class ConversationsSearchResult(Result):
    items: tuple[SearchHit, ...] = Field(description="The newest first.")


class ConversationsSearch(Request):
    result = ConversationsSearchResult
    action: Literal["conversations.search"]
    payload: ConversationsSearchPayload


# ---- changing ----


class ConversationsUpdatePayload(Inbound):
    """What is absent stays as it is; null takes a setting away."""

    conversation_id: str = Field(max_length=64)
    title: str | None = Field(default=None, min_length=1, max_length=256)
    pinned: bool | None = None
    archived: bool | None = None
    head: str | None = Field(
        default=None, max_length=64, description="Any message: its branch is in use from now on."
    )
    model: str | None = Field(default=None, max_length=256)
    system_prompt: str | None = None
    params: Params | None = None
    tools: ToolChoice | None = None


class ConversationsUpdate(Request):
    result = Conversation
    action: Literal["conversations.update"]
    payload: ConversationsUpdatePayload


class ConversationsDeletePayload(Inbound):
    conversation_ids: tuple[str, ...] = Field(default=(), max_length=1000)
    all: bool = False


class ConversationsDeleteResult(Result):
    deleted: int


class ConversationsDelete(Request):
    result = ConversationsDeleteResult
    action: Literal["conversations.delete"]
    payload: ConversationsDeletePayload


class ConversationsForkPayload(Inbound):
    conversation_id: str = Field(max_length=64)
    message_id: str = Field(max_length=64, description="The last one that the copy has.")


class ConversationsForkResult(Result):
    conversation_id: str


class ConversationsFork(Request):
    result = ConversationsForkResult
    action: Literal["conversations.fork"]
    payload: ConversationsForkPayload


class ConversationPayload(Inbound):
    conversation_id: str = Field(max_length=64)


class ConversationsCompactResult(Result):
    message_id: str = Field(description="Of the summary that stands for what came before it.")


class ConversationsCompact(Request):
    result = ConversationsCompactResult
    action: Literal["conversations.compact"]
    payload: ConversationPayload


# ---- as files ----


class ConversationsExportPayload(Inbound):
    conversation_ids: tuple[str, ...] = Field(
        default=(), max_length=100_000, description="None of them is all of them."
    )
    format: Literal["markdown", "json"] = Field(
        default="markdown", description="`json` has all branches, and can be imported."
    )


class ConversationsExportResult(Result):
    attachment_id: str
    bytes: int
    mime: str


class ConversationsExport(Request):
    result = ConversationsExportResult
    action: Literal["conversations.export"]
    payload: ConversationsExportPayload


class ConversationsImportPayload(Inbound):
    attachment_id: str = Field(
        max_length=64, description="Sent with `POST /api/attachments?for=import`; it is gone after."
    )


class Imported(Result):
    conversation_id: str


class ConversationsImportResult(Result):
    items: tuple[Imported, ...]


class ConversationsImport(Request):
    result = ConversationsImportResult
    action: Literal["conversations.import"]
    payload: ConversationsImportPayload


# ---- events ----


class ConversationsCreated(EventModel):
    type: Literal["conversations.created"] = "conversations.created"
    data: Conversation = Field(description="Its first message was kept.")


class ConversationsUpdated(EventModel):
    type: Literal["conversations.updated"] = "conversations.updated"
    data: Conversation = Field(description="It has another title, head, message or setting.")


class DeletedConversations(Result):
    conversation_ids: tuple[str, ...]


class ConversationsDeleted(EventModel):
    type: Literal["conversations.deleted"] = "conversations.deleted"
    data: DeletedConversations = Field(description="They are gone, with what only they showed.")
