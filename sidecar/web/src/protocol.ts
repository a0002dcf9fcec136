// The sidecar's WebSocket protocol, version 1.
// Made by `sidecar schema --format typescript`.
//
// A later server may add fields, codes, states, chunk types and event types to
// its frames: a client ignores what it does not know. Unknown fields of a
// request are errors.

export const PROTOCOL_VERSION = 1;

/** What each action takes. */
export interface Payloads {
  "hello": HelloPayload;
  "ping": Nothing;
  "chat": ChatPayload;
  "cancel": CancelPayload;
  "regenerate": RegeneratePayload;
  "resume": ResumePayload;
  "conversations.list": ConversationsListPayload;
  "conversations.get": ConversationsGetPayload;
  "conversations.search": ConversationsSearchPayload;
  "conversations.update": ConversationsUpdatePayload;
  "conversations.delete": ConversationsDeletePayload;
  "conversations.fork": ConversationsForkPayload;
  "conversations.compact": ConversationPayload;
  "conversations.export": ConversationsExportPayload;
  "conversations.import": ConversationsImportPayload;
  "attachments.create": AttachmentsCreatePayload;
  "models.list": ModelsListPayload;
  "providers.list": Nothing;
  "providers.test": ProviderPayload;
  "keys.status": Nothing;
  "keys.set": KeysSetPayload;
  "keys.delete": ProviderPayload;
  "approvals.resolve": ApprovalsResolvePayload;
  "approvals.rules.list": Nothing;
  "approvals.rules.delete": RulesDeletePayload;
  "elicitations.resolve": ElicitationsResolvePayload;
  "mcp.servers.list": Nothing;
  "mcp.servers.add": ServerEntry;
  "mcp.servers.update": ServerEntry;
  "mcp.servers.import": ServersImportPayload;
  "mcp.servers.approve": ApprovePayload;
  "mcp.servers.delete": ServerPayload;
  "mcp.servers.enable": ServerPayload;
  "mcp.servers.disable": ServerPayload;
  "mcp.servers.restart": ServerPayload;
  "mcp.servers.logs": ServerLogsPayload;
  "mcp.servers.authorize": AuthorizePayload;
  "mcp.tools.list": ToolsListPayload;
  "mcp.tools.call": ToolsCallPayload;
  "config.get": Nothing;
  "diagnostics": Nothing;
  "shutdown": Nothing;
}

/** What each action answers with. */
export interface Results {
  "hello": HelloResult;
  "ping": Empty;
  "chat": ChatResult;
  "cancel": CancelResult;
  "regenerate": ChatResult;
  "resume": ChatResult;
  "conversations.list": ConversationsListResult;
  "conversations.get": ConversationsGetResult;
  "conversations.search": ConversationsSearchResult;
  "conversations.update": Conversation;
  "conversations.delete": ConversationsDeleteResult;
  "conversations.fork": ConversationsForkResult;
  "conversations.compact": ConversationsCompactResult;
  "conversations.export": ConversationsExportResult;
  "conversations.import": ConversationsImportResult;
  "attachments.create": AttachmentsCreateResult;
  "models.list": ModelsListResult;
  "providers.list": ProvidersListResult;
  "providers.test": ProvidersTestResult;
  "keys.status": KeysStatusResult;
  "keys.set": KeysSetResult;
  "keys.delete": Empty;
  "approvals.resolve": ApprovalsResolveResult;
  "approvals.rules.list": RulesListResult;
  "approvals.rules.delete": RulesDeleteResult;
  "elicitations.resolve": ElicitationsResolveResult;
  "mcp.servers.list": McpServersListResult;
  "mcp.servers.add": McpServerStatus;
  "mcp.servers.update": McpServerStatus;
  "mcp.servers.import": McpServersImportResult;
  "mcp.servers.approve": McpServerStatus;
  "mcp.servers.delete": Empty;
  "mcp.servers.enable": McpServerStatus;
  "mcp.servers.disable": McpServerStatus;
  "mcp.servers.restart": McpServerStatus;
  "mcp.servers.logs": ServerLogsResult;
  "mcp.servers.authorize": AuthorizeResult;
  "mcp.tools.list": ToolsListResult;
  "mcp.tools.call": ToolsCallResult;
  "config.get": ConfigGetResult;
  "diagnostics": DiagnosticsResult;
  "shutdown": Empty;
}

export type Action = keyof Payloads;

export type ErrorCode =
  | "internal"
  | "config_invalid"
  | "port_in_use"
  | "already_running"
  | "keyring_unavailable"
  | "storage_locked"
  | "storage_full"
  | "storage_corrupt"
  | "storage_newer"
  | "bad_host"
  | "origin_not_allowed"
  | "unauthorized"
  | "bad_request"
  | "invalid_json"
  | "unknown_action"
  | "unsupported_protocol"
  | "hello_required"
  | "duplicate_request"
  | "not_found"
  | "conflict"
  | "busy"
  | "overloaded"
  | "attachment_too_large"
  | "unsupported_media"
  | "provider_error"
  | "key_missing"
  | "key_rejected"
  | "quota_exhausted"
  | "rate_limited"
  | "provider_overloaded"
  | "provider_bad_response"
  | "model_not_found"
  | "model_no_tools"
  | "model_no_vision"
  | "context_too_long"
  | "content_filtered"
  | "network_unreachable"
  | "dns_failed"
  | "timeout"
  | "tls_untrusted"
  | "proxy_auth_required"
  | "local_server_down"
  | "mcp_start_failed"
  | "mcp_crashed"
  | "mcp_timeout"
  | "mcp_auth_required"
  | "mcp_needs_approval"
  | "mcp_invalid_result"
  | "tool_not_found";

/**
 * 1001: The sidecar shuts down.
 * 1003: A binary frame came.
 * 1009: A frame was larger than `frame_bytes`.
 * 4001: The page's session has ended: its code was used twice.
 * 4008: The client read too slowly; its runs go on.
 */
export type CloseCode = 1001 | 1003 | 1009 | 4001 | 4008;

export type Request =
  | Hello
  | Ping
  | Chat
  | Cancel
  | Regenerate
  | Resume
  | ConversationsList
  | ConversationsGet
  | ConversationsSearch
  | ConversationsUpdate
  | ConversationsDelete
  | ConversationsFork
  | ConversationsCompact
  | ConversationsExport
  | ConversationsImport
  | AttachmentsCreate
  | ModelsList
  | ProvidersList
  | ProvidersTest
  | KeysStatus
  | KeysSet
  | KeysDelete
  | ApprovalsResolve
  | ApprovalsRulesList
  | ApprovalsRulesDelete
  | ElicitationsResolve
  | McpServersList
  | McpServersAdd
  | McpServersUpdate
  | McpServersImport
  | McpServersApprove
  | McpServersDelete
  | McpServersEnable
  | McpServersDisable
  | McpServersRestart
  | McpServersLogs
  | McpServersAuthorize
  | McpToolsList
  | McpToolsCall
  | ConfigGet
  | Diagnostics
  | Shutdown;

export interface Hello {
  action: "hello";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: HelloPayload;
}

export interface HelloPayload {
  /** The version that the client speaks. */
  protocol: number;
  client?: ClientInfo | null;
  /** Topics of events; "*" is all. */
  events?: string[];
  /** What this client asks its person about: `approvals`, `elicitations`. */
  answers?: string[];
}

export interface ClientInfo {
  name: string;
  version?: string;
}

export interface Ping {
  action: "ping";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload?: Nothing;
}

export type Nothing = Record<string, never>;

export interface Chat {
  action: "chat";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ChatPayload;
}

export interface ChatPayload {
  /** The message; or `parts`. */
  text?: string | null;
  /** Text and files, in order. */
  parts?: (TextPart | AttachmentPart)[] | null;
  /** Absent: a new one; in basic mode the socket's. */
  conversation_id?: string | null;
  /** Branch below this message; absent: the head. */
  parent_id?: string | null;
  /** A user message; the new one is its sibling. */
  replaces?: string | null;
  /** `provider/model`. */
  model?: string | null;
  system_prompt?: string | null;
  params?: Params;
  tools?: ToolChoice;
  /** False: the conversation is never written. */
  store?: boolean;
  /** What becomes of the run when its last follower leaves. */
  on_disconnect?: "continue" | "cancel";
  /** A UUID: the same chat sent again attaches to its run. */
  retry_key?: string | null;
}

export interface TextPart {
  type: "text";
  text: string;
}

export interface AttachmentPart {
  type: "attachment";
  attachment_id: string;
  /** Absent: what it was called when it was sent. */
  name?: string | null;
}

export interface Params {
  temperature?: number | null;
  top_p?: number | null;
  max_tokens?: number | null;
  reasoning_effort?: string | null;
  stop?: string[] | null;
  /** A JSON Schema that the answer must follow. */
  json_schema?: { [key: string]: JsonValue } | null;
}

export type JsonValue =
  | null
  | boolean
  | number
  | string
  | JsonValue[]
  | { [key: string]: JsonValue };

export interface ToolChoice {
  /** `rules` follows them, `ask` asks every time, `off` has none. */
  mode?: "rules" | "ask" | "off";
  /** Only these servers; absent is all. */
  servers?: string[] | null;
  /** `server` or `server/tool`, left out. */
  deny?: string[];
}

export interface Cancel {
  action: "cancel";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: CancelPayload;
}

export interface CancelPayload {
  run_id?: string | null;
  /** The chat's request_id, on this connection. */
  target?: string | null;
  /** Stop only this call; the turn goes on. */
  tool_call_id?: string | null;
}

export interface Regenerate {
  action: "regenerate";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: RegeneratePayload;
}

export interface RegeneratePayload {
  /** An assistant's message gets a sibling; a user's is answered. */
  message_id: string;
  model?: string | null;
  system_prompt?: string | null;
  params?: Params;
  tools?: ToolChoice;
  on_disconnect?: "continue" | "cancel";
  retry_key?: string | null;
}

export interface Resume {
  action: "resume";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ResumePayload;
}

export interface ResumePayload {
  run_id: string;
  /** The last seq seen; -1 replays all. */
  after_seq?: number;
}

export interface ConversationsList {
  action: "conversations.list";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload?: ConversationsListPayload;
}

export interface ConversationsListPayload {
  /** Of the page before. */
  cursor?: string | null;
  limit?: number;
  /** The archived ones instead of the others. */
  archived?: boolean;
}

export interface ConversationsGet {
  action: "conversations.get";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ConversationsGetPayload;
}

export interface ConversationsGetPayload {
  conversation_id: string;
  /** A message_id: only what is older. */
  before?: string | null;
  limit?: number;
}

export interface ConversationsSearch {
  action: "conversations.search";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ConversationsSearchPayload;
}

export interface ConversationsSearchPayload {
  /** Words; each may be a beginning. */
  q: string;
  limit?: number;
}

export interface ConversationsUpdate {
  action: "conversations.update";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ConversationsUpdatePayload;
}

export interface ConversationsUpdatePayload {
  conversation_id: string;
  title?: string | null;
  pinned?: boolean | null;
  archived?: boolean | null;
  /** Any message: its branch is in use from now on. */
  head?: string | null;
  model?: string | null;
  system_prompt?: string | null;
  params?: Params | null;
  tools?: ToolChoice | null;
}

export interface ConversationsDelete {
  action: "conversations.delete";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ConversationsDeletePayload;
}

export interface ConversationsDeletePayload {
  conversation_ids?: string[];
  all?: boolean;
}

export interface ConversationsFork {
  action: "conversations.fork";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ConversationsForkPayload;
}

export interface ConversationsForkPayload {
  conversation_id: string;
  /** The last one that the copy has. */
  message_id: string;
}

export interface ConversationsCompact {
  action: "conversations.compact";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ConversationPayload;
}

export interface ConversationPayload {
  conversation_id: string;
}

export interface ConversationsExport {
  action: "conversations.export";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ConversationsExportPayload;
}

export interface ConversationsExportPayload {
  /** None of them is all of them. */
  conversation_ids?: string[];
  /** `json` has all branches, and can be imported. */
  format?: "markdown" | "json";
}

export interface ConversationsImport {
  action: "conversations.import";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ConversationsImportPayload;
}

export interface ConversationsImportPayload {
  /** Sent with `POST /api/attachments?for=import`; it is gone after. */
  attachment_id: string;
}

export interface AttachmentsCreate {
  action: "attachments.create";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: AttachmentsCreatePayload;
}

export interface AttachmentsCreatePayload {
  name?: string | null;
  /** A hint; what it is, is seen from its bytes. */
  mime?: string | null;
  /** Base64; a file that does not fit a frame goes to `POST /api/attachments`. */
  data_b64: string;
}

export interface ModelsList {
  action: "models.list";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload?: ModelsListPayload;
}

export interface ModelsListPayload {
  /** Ask the vendors again. */
  refresh?: boolean;
}

export interface ProvidersList {
  action: "providers.list";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload?: Nothing;
}

export interface ProvidersTest {
  action: "providers.test";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ProviderPayload;
}

export interface ProviderPayload {
  provider: string;
}

export interface KeysStatus {
  action: "keys.status";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload?: Nothing;
}

export interface KeysSet {
  action: "keys.set";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: KeysSetPayload;
}

export interface KeysSetPayload {
  provider: string;
  key: string;
  /** False: for this run of the sidecar only. */
  persist?: boolean;
}

export interface KeysDelete {
  action: "keys.delete";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ProviderPayload;
}

export interface ApprovalsResolve {
  action: "approvals.resolve";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ApprovalsResolvePayload;
}

export interface ApprovalsResolvePayload {
  approval_id: string;
  decision: "allow" | "deny";
  duration?: "once" | "conversation" | "always";
  scope?: "tool" | "server";
  /** Run it with these instead; only with `once`. */
  arguments?: { [key: string]: JsonValue } | null;
}

export interface ApprovalsRulesList {
  action: "approvals.rules.list";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload?: Nothing;
}

export interface ApprovalsRulesDelete {
  action: "approvals.rules.delete";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: RulesDeletePayload;
}

export interface RulesDeletePayload {
  rule_id?: string | null;
  all?: boolean;
}

export interface ElicitationsResolve {
  action: "elicitations.resolve";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ElicitationsResolvePayload;
}

export interface ElicitationsResolvePayload {
  elicitation_id: string;
  /** cancel: dismissed without a choice. */
  action: "accept" | "decline" | "cancel";
  /** What a form was filled with; fields left out get their defaults. */
  content?: { [key: string]: JsonValue } | null;
}

export interface McpServersList {
  action: "mcp.servers.list";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload?: Nothing;
}

export interface McpServersAdd {
  action: "mcp.servers.add";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ServerEntry;
}

export interface ServerEntry {
  server: string;
  command?: string | null;
  args?: string[] | null;
  env?: { [key: string]: string | Masked } | null;
  cwd?: string | null;
  url?: string | null;
  /** Of a url; absent finds it out. */
  transport?: "auto" | "http" | "sse" | null;
  headers?: { [key: string]: string | Masked } | null;
  /** Of a url. */
  oauth?: OAuthEntry | null;
  connect_timeout_s?: number | null;
  call_timeout_s?: number | null;
}

export interface Masked {
  masked: true;
}

export interface OAuthEntry {
  client_id?: string | null;
  /** Goes to the keyring. */
  client_secret?: string | Masked | null;
  client_metadata_url?: string | null;
  redirect_uri?: string | null;
  scopes?: string[] | null;
}

export interface McpServersUpdate {
  action: "mcp.servers.update";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ServerEntry;
}

export interface McpServersImport {
  action: "mcp.servers.import";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ServersImportPayload;
}

export interface ServersImportPayload {
  /** Another program's settings. */
  text: string;
  /** The servers to store, disabled until approved. */
  accept?: string[] | null;
}

export interface McpServersApprove {
  action: "mcp.servers.approve";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ApprovePayload;
}

export interface ApprovePayload {
  server: string;
  /** Of what the person was shown. */
  fingerprint: string;
}

export interface McpServersDelete {
  action: "mcp.servers.delete";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ServerPayload;
}

export interface ServerPayload {
  server: string;
}

export interface McpServersEnable {
  action: "mcp.servers.enable";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ServerPayload;
}

export interface McpServersDisable {
  action: "mcp.servers.disable";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ServerPayload;
}

export interface McpServersRestart {
  action: "mcp.servers.restart";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ServerPayload;
}

export interface McpServersLogs {
  action: "mcp.servers.logs";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ServerLogsPayload;
}

export interface ServerLogsPayload {
  server: string;
  limit?: number;
}

export interface McpServersAuthorize {
  action: "mcp.servers.authorize";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: AuthorizePayload;
}

export interface AuthorizePayload {
  server: string;
  /** revoke signs out, here and at the authorization server. */
  action?: "begin" | "cancel" | "revoke";
}

export interface McpToolsList {
  action: "mcp.tools.list";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload?: ToolsListPayload;
}

export interface ToolsListPayload {
  /** Only this server's tools. */
  server?: string | null;
}

export interface McpToolsCall {
  action: "mcp.tools.call";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload: ToolsCallPayload;
}

export interface ToolsCallPayload {
  server: string;
  name: string;
  arguments?: { [key: string]: JsonValue };
}

export interface ConfigGet {
  action: "config.get";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload?: Nothing;
}

export interface Diagnostics {
  action: "diagnostics";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload?: Nothing;
}

export interface Shutdown {
  action: "shutdown";
  /** Chosen by the client; unique while unanswered. */
  request_id: string;
  payload?: Nothing;
}

export type Frame =
  | ProcessingFrame
  | ChunkFrame
  | CompleteFrame
  | ErrorFrame
  | EventFrame;

export interface ProcessingFrame {
  request_id: string;
  status: "processing";
  seq: number;
  chunk: Started;
}

export interface Started {
  type: null;
  data: null;
  metadata: StartedMetadata;
}

export interface StartedMetadata {
  user_message: string;
  run_id: string;
  conversation_id: string;
  user_message_id: string;
  message_id: string;
  model: string;
}

export interface ChunkFrame {
  request_id: string;
  status: "chunk";
  /** The first seq of several that were joined. */
  seq_from?: number;
  seq: number;
  chunk: Chunk;
}

export type Chunk =
  | TextChunk
  | ReasoningChunk
  | ToolCallChunk
  | ToolArgumentsChunk
  | ToolProgressChunk
  | ToolResultChunk
  | UsageChunk
  | RetryChunk
  | NoticeChunk
  | ImageChunk
  | FileChunk
  | CitationChunk
  | ProviderItemChunk
  | SnapshotChunk;

export interface TextChunk {
  type: "text";
  /** A piece of the answer. */
  data: string;
  metadata: NoMetadata;
}

export type NoMetadata = Record<string, unknown>;

export interface ReasoningChunk {
  type: "reasoning";
  /** A piece of what the model thinks before it answers. */
  data: string;
  metadata: NoMetadata;
}

export interface ToolCallChunk {
  type: "tool_call";
  /** The arguments as JSON. Comes once a call, when they are complete. */
  data: string;
  metadata: ToolCallMetadata;
}

export interface ToolCallMetadata {
  tool_call_id: string;
  server: string | null;
  name: string;
  offered_as: string;
  arguments: { [key: string]: JsonValue };
  /** What the model wrote, when it was no JSON object. */
  invalid_arguments?: string;
  /** True when the arguments were too long for a frame. */
  truncated?: boolean;
}

export interface ToolArgumentsChunk {
  type: "tool_arguments";
  /** A piece of a call's arguments while the model writes them. */
  data: string;
  metadata: ToolArgumentsMetadata;
}

export interface ToolArgumentsMetadata {
  tool_call_id: string;
}

export interface ToolProgressChunk {
  type: "tool_progress";
  /** What the server says of how far a running call is, if anything. */
  data: string | null;
  metadata: ToolProgressMetadata;
}

export interface ToolProgressMetadata {
  tool_call_id: string;
  progress: number;
  /** Where the server gives one. */
  total?: number;
}

export interface ToolResultChunk {
  type: "tool_result";
  /** The text for display, and what the model reads. */
  data: string;
  metadata: ToolResultMetadata;
}

export interface ToolResultMetadata {
  tool_call_id: string;
  status: "ok" | "error" | "denied" | "timeout" | "cancelled" | "unknown";
  duration_ms: number;
  /** Why it was not run: unanswered, rule, off, person, … */
  reason?: string;
  /** The arguments, when the person changed them. */
  arguments_used?: { [key: string]: JsonValue };
  /** The result's blocks, where not only text. */
  content?: ToolContent[];
  /** As the tool's output schema has it. */
  structured_content?: JsonValue;
  /** True when the text was cut to the limit. */
  truncated?: boolean;
}

export type ToolContent = TextContent | MediaContent | LinkContent;

export interface TextContent {
  type: "text";
  text: string;
}

export interface MediaContent {
  type: "image" | "audio" | "file";
  mime: string;
  bytes: number;
  /** Where its bytes are; absent when they are not kept. */
  attachment_id?: string;
}

export interface LinkContent {
  type: "link";
  uri: string;
  name: string;
}

export interface UsageChunk {
  type: "usage";
  /** Closes a step with its own figures; `complete.result.usage` is the sum. */
  data: null;
  metadata: Usage;
}

export interface Usage {
  /** Tokens read, those from and into the cache included. */
  input: number;
  /** Tokens written, those of reasoning included. */
  output: number;
  /** Input tokens read from the vendor's cache. */
  cached: number;
  /** Input tokens put into the vendor's cache, where it counts them. */
  cache_written: number;
  /** Output tokens spent on reasoning. */
  reasoning: number;
  /** What it cost, where that is known. */
  cost?: Cost;
  /** The model's window after it, where the vendor counts. */
  context?: Context;
}

export interface Cost {
  amount: number;
  currency: string;
  /** True when it comes from a price table. */
  estimated: boolean;
}

export interface Context {
  /** Tokens of the request and of the answer. */
  used: number;
  /** Tokens that the window has. */
  limit?: number;
}

export interface RetryChunk {
  type: "retry";
  /** For a person: what happened and what follows. */
  data: string;
  metadata: RetryMetadata;
}

export interface RetryMetadata {
  attempt: number;
  max: number;
  delay_ms: number;
  error_info: ErrorInfo;
}

export interface ErrorInfo {
  /** Stable; treat one that you do not know as `internal`. */
  code: string;
  /** The same request may succeed later. */
  retryable: boolean;
  /** How long to wait before trying again. */
  retry_after_ms?: number;
  origin: "client" | "server" | "provider" | "mcp" | "network";
  /** Which provider it concerns. */
  provider?: string;
  /** Which MCP server it concerns. */
  server?: string;
  /** The vendor's HTTP status. */
  http_status?: number;
  /** More for a log or a tooltip, such as a server's last lines. */
  detail?: string;
}

export interface NoticeChunk {
  type: "notice";
  /** For a person: something to know that is no part of the answer. */
  data: string;
  metadata: NoticeMetadata;
}

export interface NoticeMetadata {
  code: string;
}

export interface ImageChunk {
  type: "image";
  /** An image that the model made. */
  data: null;
  metadata: AttachmentMetadata;
}

export interface AttachmentMetadata {
  attachment_id: string;
  mime: string;
  /** Where it has one. */
  name?: string;
}

export interface FileChunk {
  type: "file";
  /** A file that the model made. */
  data: null;
  metadata: AttachmentMetadata;
}

export interface CitationChunk {
  type: "citation";
  /** Where the text before it comes from. */
  data: null;
  metadata: CitationMetadata;
}

export interface CitationMetadata {
  /** The page it cites. */
  url?: string;
  /** The title of what it cites. */
  title?: string;
}

export interface ProviderItemChunk {
  type: "provider_item";
  /** What the vendor did by itself, such as a search of the web. */
  data: null;
  metadata: ProviderItemMetadata;
}

export interface ProviderItemMetadata {
  /** The vendor's own word for it. */
  kind: string;
}

export interface SnapshotChunk {
  type: "snapshot";
  /** Sent first by a resume whose frames are no longer kept. */
  data: null;
  metadata: SnapshotMetadata;
}

export interface SnapshotMetadata {
  message: Message;
  /** Replaces everything up to this seq. */
  seq: number;
  /** True when its beginning is left out, to fit a frame. */
  truncated?: boolean;
}

export interface Message {
  message_id: string;
  parent_id: string | null;
  role: "user" | "assistant";
  parts: Part[];
  status: "streaming" | "complete" | "cancelled" | "interrupted" | "error";
  /** `provider/model` that wrote it. */
  model?: string;
  /** The sum over its steps. */
  usage?: Usage;
  /** Why it ended early, for a person. */
  error?: string;
  /** Why it ended early, for a program. */
  error_info?: ErrorInfo;
  /** RFC 3339, UTC. */
  created_at: string;
  /** True when its beginning is left out, to fit a frame. */
  truncated?: boolean;
}

export type Part =
  | TextPart
  | ReasoningPart
  | ToolCallPart
  | ToolResultPart
  | ImagePart
  | FilePart
  | CitationPart
  | ProviderItemPart
  | SummaryPart;

export interface ReasoningPart {
  type: "reasoning";
  /** Empty where the vendor keeps it to itself. */
  text: string;
}

export interface ToolCallPart {
  type: "tool_call";
  tool_call_id: string;
  /** The MCP server; null for a tool that we do not have. */
  server: string | null;
  /** The tool's name on its server. */
  name: string;
  /** The name under which the model knows the tool. */
  offered_as: string;
  arguments: { [key: string]: JsonValue };
  /** What the model wrote, when it was no JSON object; `arguments` is then empty. */
  invalid_arguments?: string;
}

export interface ToolResultPart {
  type: "tool_result";
  tool_call_id: string;
  status: "ok" | "error" | "denied" | "timeout" | "cancelled" | "unknown";
  /** The result as the model and the person read it. */
  text: string;
  duration_ms: number;
  /** Why it was not run: unanswered, rule, off, person, … */
  reason?: string;
  /** The arguments, when the person changed them. */
  arguments_used?: { [key: string]: JsonValue };
  /** The result's blocks, where not only text. */
  content?: ToolContent[];
  /** The result as the tool's schema has it. */
  structured_content?: JsonValue;
  /** True when the text was cut to the limit. */
  truncated?: boolean;
}

export interface ImagePart {
  type: "image";
  attachment_id: string;
  mime: string;
  /** What the person called it. */
  name?: string;
}

export interface FilePart {
  type: "file";
  attachment_id: string;
  mime: string;
  /** What the person called it. */
  name?: string;
}

export interface CitationPart {
  type: "citation";
  /** The page it cites. */
  url?: string;
  /** The title of what it cites. */
  title?: string;
}

export interface ProviderItemPart {
  type: "provider_item";
  /** The vendor's own word for it. */
  kind: string;
}

export interface SummaryPart {
  type: "summary";
  text: string;
}

export interface CompleteFrame {
  request_id: string;
  status: "complete";
  /** The run's last seq, where the request follows a run. */
  seq?: number;
  result: Result;
}

export type Result =
  | HelloResult
  | ChatResult
  | CancelResult
  | AttachmentsCreateResult
  | ConversationsListResult
  | ConversationsGetResult
  | ConversationsSearchResult
  | Conversation
  | ConversationsDeleteResult
  | ConversationsForkResult
  | ConversationsCompactResult
  | ConversationsExportResult
  | ConversationsImportResult
  | ModelsListResult
  | ProvidersListResult
  | ProvidersTestResult
  | KeysStatusResult
  | KeysSetResult
  | ApprovalsResolveResult
  | ElicitationsResolveResult
  | RulesListResult
  | RulesDeleteResult
  | McpServersListResult
  | McpServersImportResult
  | McpServerStatus
  | ServerLogsResult
  | AuthorizeResult
  | ToolsListResult
  | ToolsCallResult
  | ConfigGetResult
  | DiagnosticsResult
  | Empty;

export interface HelloResult {
  protocol: number;
  server: ServerInfo;
  connection_id: string;
  /** Every action, and additions as action.field. */
  capabilities: string[];
  limits: Limits;
  runs: RunInfo[];
  pending: Pending;
}

export interface ServerInfo {
  name: "sidecar";
  version: string;
  /** New at every start. */
  instance: string;
}

export interface Limits {
  frame_bytes: number;
  frame_bytes_out: number;
  runs: number;
  tool_calls: number;
  actions_per_s: number;
  tools_per_server: number;
  description_bytes: number;
  result_bytes: number;
  attachment_bytes: number;
  /** All of them together. */
  attachments_bytes: number;
  /** Of a file for `conversations.import`. */
  import_bytes: number;
}

export interface RunInfo {
  run_id: string;
  conversation_id: string;
  /** The newest seq. */
  seq: number;
  state: "running" | "ended";
}

export interface Pending {
  approvals: Approval[];
  elicitations: Elicitation[];
}

export interface Approval {
  approval_id: string;
  /** Null for a call made with `mcp.tools.call`. */
  run_id: string | null;
  conversation_id: string | null;
  tool_call_id: string;
  server: string;
  name: string;
  description: string;
  arguments: { [key: string]: JsonValue };
  /** True when they were too long to show in full. */
  arguments_truncated?: boolean;
  hints: Hints;
  /** It was allowed before, and has changed since. */
  changed?: ToolChange;
  expires_at: string;
}

export interface Hints {
  read_only: boolean | null;
  destructive: boolean | null;
  idempotent: boolean | null;
  open_world: boolean | null;
}

export interface ToolChange {
  /** The description when it was allowed. */
  before: string;
  after: string;
}

export interface Elicitation {
  elicitation_id: string;
  server: string;
  mode: "form" | "url";
  /** The server's own words. */
  message: string;
  /** Of a form: an object of plain fields, as JSON Schema. */
  schema?: { [key: string]: JsonValue };
  /** To open, once the person agrees; nothing is sent back from there. */
  url?: string;
  expires_at: string;
}

export interface ChatResult {
  run_id: string;
  conversation_id: string;
  message_id: string;
  finish_reason: "stop" | "length" | "step_limit" | "content_filter" | "refusal" | "cancelled";
  usage: Usage;
}

export interface CancelResult {
  cancelled: boolean;
}

export interface AttachmentsCreateResult {
  attachment_id: string;
  bytes: number;
  mime: string;
}

export interface ConversationsListResult {
  /** Pinned ones first, then the newest. */
  items: Conversation[];
  /** Null on the last page. */
  next_cursor: string | null;
}

export interface Conversation {
  conversation_id: string;
  /** The first words, until a model or a person has a better one. */
  title: string;
  /** The last one used; what a chat without a model gets. */
  model: string | null;
  created_at: string;
  updated_at: string;
  /** Over all branches. */
  message_count: number;
  pinned: boolean;
  archived: boolean;
  /** The sum over its messages. */
  usage: Usage;
  /** Its own, in place of the one in the settings. */
  system_prompt?: string;
  /** Its own, as a chat's, in place of those in the settings. */
  params?: { [key: string]: JsonValue };
  /** As a chat's; what a chat without `tools` gets. */
  tools?: { [key: string]: JsonValue };
  /** The run that goes on in it. */
  run_id?: string;
}

export interface ConversationsGetResult {
  conversation: Conversation;
  /** Of all branches, oldest first; `parent_id` says what follows what. */
  messages: Message[];
  /** True when there are older ones. */
  has_more: boolean;
  /** The last message of the branch in use. */
  head: string | null;
}

export interface ConversationsSearchResult {
  /** The newest first. */
  items: SearchHit[];
}

export interface SearchHit {
  conversation_id: string;
  /** Null when the title was found. */
  message_id: string | null;
  title: string;
  snippet: string;
  created_at: string;
}

export interface ConversationsDeleteResult {
  deleted: number;
}

export interface ConversationsForkResult {
  conversation_id: string;
}

export interface ConversationsCompactResult {
  /** Of the summary that stands for what came before it. */
  message_id: string;
}

export interface ConversationsExportResult {
  attachment_id: string;
  bytes: number;
  mime: string;
}

export interface ConversationsImportResult {
  items: Imported[];
}

export interface Imported {
  conversation_id: string;
}

export interface ModelsListResult {
  items: ModelItem[];
  errors: ProviderFault[];
}

export interface ModelItem {
  /** `provider/model`, as `chat` takes it. */
  model: string;
  provider: string;
  name: string;
  /** Tokens; null is unknown, as everywhere here. */
  context: number | null;
  max_output: number | null;
  vision: boolean | null;
  tools: boolean | null;
  reasoning: boolean | null;
  /** Where a table has it. */
  price?: Price;
}

export interface Price {
  input: number;
  output: number;
  /** Of input that is read from the vendor's cache. */
  cached?: number;
  currency: string;
}

export interface ProviderFault {
  provider: string;
  code: string;
  message: string;
}

export interface ProvidersListResult {
  items: ProviderItem[];
  /** The model servers of this machine that answer now and need no key. */
  found: LocalServer[];
}

export interface ProviderItem {
  provider: string;
  kind: string;
  base_url: string | null;
  key_set: boolean;
}

export interface LocalServer {
  /** The program's name, or the provider's. */
  name: string;
  base_url: string;
  /** The provider that has it; null: the settings need one with this `base_url`. */
  provider: string | null;
  /** As `chat` takes them, or without a provider by the server's own ids. */
  models: string[];
}

export interface ProvidersTestResult {
  provider: string;
  ok: boolean;
  /** How many models it offers. */
  models?: number;
  duration_ms: number;
  /** What is wrong and what to do. */
  error?: string;
  /** The same for programs. */
  error_info?: ErrorInfo;
}

export interface KeysStatusResult {
  items: KeyItem[];
}

export interface KeyItem {
  provider: string;
  set: boolean;
  source: "session" | "config" | "keyring" | "environment" | null;
  /** The keyring in use. */
  backend: string | null;
  /** Why the keyring could not be asked, or the key not used. */
  reason?: string;
}

export interface KeysSetResult {
  source: "session" | "keyring";
  /** A source that is looked at before this one. */
  shadowed_by?: string;
}

export interface ApprovalsResolveResult {
  /** False: somebody else was first. */
  applied: boolean;
  decision: "allow" | "deny";
  /** connection_id, or cancel, shutdown, timeout. */
  by: string;
}

export interface ElicitationsResolveResult {
  /** False: somebody else was first. */
  applied: boolean;
  action: "accept" | "decline" | "cancel";
  /** connection_id, or cancel, shutdown, timeout. */
  by: string;
}

export interface RulesListResult {
  items: Rule[];
}

export interface Rule {
  rule_id: string;
  decision: "allow" | "deny";
  scope: "tool" | "server";
  server: string;
  /** The tool; null at server scope. */
  name: string | null;
  /** Null: always. */
  conversation_id: string | null;
  created_at: string;
  source: "person" | "config";
}

export interface RulesDeleteResult {
  deleted: number;
}

export interface McpServersListResult {
  items: McpServerStatus[];
}

export interface McpServerStatus {
  server: string;
  /** `sse` is HTTP as old servers speak it. */
  transport: "stdio" | "http" | "sse";
  state: "disabled" | "needs_approval" | "idle" | "starting" | "ready" | "degraded" | "backoff" | "needs_auth" | "failed" | "stopped";
  /** The negotiated MCP version. */
  era: string | null;
  fingerprint: string;
  /** Why it is not ready, for a person. */
  error?: string;
  /** The same for programs. */
  error_info?: ErrorInfo;
  /** What a person should know of its entry, each with what to do. */
  warnings: string[];
  /** Of a server that was signed in to. */
  authorization?: McpAuthorization;
  tools: number;
  /** Of a stdio server that runs. */
  pid?: number;
  /** When it came into this state. */
  since: string;
}

export interface McpAuthorization {
  /** The authorization server. */
  issuer: string;
  scopes: string[];
  /** False: for this run only, since there is no keyring. */
  kept: boolean;
}

export interface McpServersImportResult {
  items: ServerPreview[];
  left_out: ServerLeftOut[];
  /** Empty for a preview. */
  stored: McpServerStatus[];
}

export interface ServerPreview {
  server: string;
  command: string | null;
  args: string[];
  env_names: string[];
  url: string | null;
  warnings: string[];
  /** There is a server of that name already. */
  is_taken: boolean;
}

export interface ServerLeftOut {
  server: string;
  reason: string;
}

export interface ServerLogsResult {
  /** The last lines of its stderr, oldest first. */
  items: string[];
}

export interface AuthorizeResult {
  /** What the client opens in the person's browser, of begin. */
  url?: string;
  /** Until when that can be answered. */
  expires_at?: string;
}

export interface ToolsListResult {
  items: ToolItem[];
}

export interface ToolItem {
  server: string;
  name: string;
  offered_as: string;
  title: string | null;
  description: string;
  input_schema: { [key: string]: JsonValue };
  output_schema: { [key: string]: JsonValue } | null;
  hints: Hints;
  permission: "allow" | "deny" | "ask";
}

export interface ToolsCallResult {
  status: "ok" | "error" | "denied" | "timeout" | "cancelled" | "unknown";
  text: string;
  content: ToolContent[];
  /** As the tool's output schema has it. */
  structured_content?: JsonValue;
  /** True when the text was cut to the limit. */
  truncated?: boolean;
  duration_ms: number;
}

export interface ConfigGetResult {
  /** Changes with the settings. */
  revision: string;
  /** Merged; a secret is `{masked: true}`. */
  settings: { [key: string]: JsonValue };
  /** Where each set value came from. */
  sources: { [key: string]: string };
}

export interface DiagnosticsResult {
  /** False when anything is broken. */
  ok: boolean;
  items: Finding[];
}

export interface Finding {
  /** `broken` is what is needed and does not work; `warning` can wait. */
  status: "ok" | "warning" | "broken";
  area: "program" | "settings" | "folder" | "conversations" | "log" | "keyring" | "provider" | "command" | "mcp" | "port";
  /** Which one, where there are several: a provider, a server, … */
  name?: string;
  /** What was found, and what to do about it. */
  text: string;
  /** The error's code, for programs. */
  code?: string;
}

export type Empty = Record<string, unknown>;

export interface ErrorFrame {
  request_id: string | null;
  status: "error";
  /** The run's last seq, where the request follows a run. */
  seq?: number;
  /** For a person: what happened and what to do. */
  error: string;
  error_info: ErrorInfo;
}

export interface EventFrame {
  request_id: null;
  status: "event";
  event_seq: number;
  event: Event;
}

export type Event =
  | RunsStarted
  | RunsEnded
  | ConversationsCreated
  | ConversationsUpdated
  | ConversationsDeleted
  | ApprovalsPending
  | ApprovalsResolved
  | ElicitationsPending
  | ElicitationsResolved
  | McpServerStateChanged
  | McpToolsChanged
  | KeysChanged
  | ConfigChanged
  | ServerShutdown;

export interface RunsStarted {
  type: "runs.started";
  /** A turn began, in any window. */
  data: RunInfo;
}

export interface RunsEnded {
  type: "runs.ended";
  /** A turn ended, in any window. */
  data: RunInfo;
}

export interface ConversationsCreated {
  type: "conversations.created";
  /** Its first message was kept. */
  data: Conversation;
}

export interface ConversationsUpdated {
  type: "conversations.updated";
  /** It has another title, head, message or setting. */
  data: Conversation;
}

export interface ConversationsDeleted {
  type: "conversations.deleted";
  /** They are gone, with what only they showed. */
  data: DeletedConversations;
}

export interface DeletedConversations {
  conversation_ids: string[];
}

export interface ApprovalsPending {
  type: "approvals.pending";
  /** A tool call waits for a person. */
  data: Approval;
}

export interface ApprovalsResolved {
  type: "approvals.resolved";
  /** Somebody or something decided it. */
  data: ApprovalResolution;
}

export interface ApprovalResolution {
  approval_id: string;
  decision: "allow" | "deny";
  by: string;
}

export interface ElicitationsPending {
  type: "elicitations.pending";
  /** A server asks a person something. */
  data: Elicitation;
}

export interface ElicitationsResolved {
  type: "elicitations.resolved";
  /** Somebody or something answered it. */
  data: ElicitationResolution;
}

export interface ElicitationResolution {
  elicitation_id: string;
  action: "accept" | "decline" | "cancel";
  by: string;
}

export interface McpServerStateChanged {
  type: "mcp.server_state";
  /** A server came into another state. */
  data: McpServerStatus;
}

export interface McpToolsChanged {
  type: "mcp.tools_changed";
  /** A server's list of tools changed; names only. */
  data: ToolsChanged;
}

export interface ToolsChanged {
  server: string;
  added: string[];
  removed: string[];
  changed: string[];
}

export interface KeysChanged {
  type: "keys.changed";
  /** A key was set or deleted. */
  data: KeyChange;
}

export interface KeyChange {
  provider: string;
}

export interface ConfigChanged {
  type: "config.changed";
  /** The settings changed, by a client or in their file. */
  data: ConfigRevision;
}

export interface ConfigRevision {
  revision: string;
}

export interface ServerShutdown {
  type: "server.shutdown";
  /** To every client that said hello, whatever it subscribed to. */
  data: ShutdownNotice;
}

export interface ShutdownNotice {
  reason: string;
  deadline_ms: number;
}
