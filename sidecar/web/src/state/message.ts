// A message as it is shown: the same for one that is being written and for one that was kept.

import { type Signal, signal } from "@preact/signals";

import type {
  ChatResult,
  CitationMetadata,
  ErrorInfo,
  Message,
  Part,
  ToolCallMetadata,
  ToolResultMetadata,
  Usage,
} from "../protocol";

export interface Text {
  kind: "text";
  text: Signal<string>;
}

export interface Thoughts {
  kind: "thoughts";
  text: Signal<string>;
  /** How long it thought; null while it does, and where nobody measured it. */
  tookMs: Signal<number | null>;
  isOver: Signal<boolean>;
}

export interface Call {
  kind: "call";
  id: string;
  /** Null while the model writes the arguments. */
  call: Signal<ToolCallMetadata | null>;
  draft: Signal<string>;
  result: Signal<CallResult | null>;
  progress: Signal<Progress | null>;
}

export type CallResult = Omit<ToolResultMetadata, "tool_call_id"> & { text: string };

export interface Progress {
  done: number;
  total?: number | undefined;
  text: string | null;
}

export interface Attached {
  kind: "file";
  attachmentId: string;
  mime: string;
  name: string | null;
}

export interface Citation {
  kind: "citation";
  source: CitationMetadata;
}

/** `code` is the notice's own, or `summary`. */
export interface Note {
  kind: "note";
  code: string;
  text: string;
}

export interface Step {
  kind: "step";
  by: string;
}

export type Shown = Text | Thoughts | Call | Attached | Citation | Note | Step;

export interface Problem {
  text: string;
  info: ErrorInfo;
}

export interface ShownMessage {
  id: string;
  parentId: string | null;
  role: "user" | "assistant";
  parts: Signal<Shown[]>;
  status: Signal<Message["status"]>;
  model: string | null;
  usage: Signal<Usage | null>;
  /** Why it ended; null where that is not known any more. */
  finish: Signal<ChatResult["finish_reason"] | null>;
  problem: Signal<Problem | null>;
  createdAt: string;
  isTruncated: boolean;
}

export function emptyMessage(id: string, role: "user" | "assistant"): ShownMessage {
  return {
    id,
    parentId: null,
    role,
    parts: signal([]),
    status: signal("streaming"),
    model: null,
    usage: signal(null),
    finish: signal(null),
    problem: signal(null),
    createdAt: new Date().toISOString(),
    isTruncated: false,
  };
}

export function fromMessage(message: Message): ShownMessage {
  const { error, error_info: info } = message;
  return {
    id: message.message_id,
    parentId: message.parent_id,
    role: message.role,
    parts: signal(fromParts(message.parts)),
    status: signal(message.status),
    model: message.model ?? null,
    usage: signal(message.usage ?? null),
    finish: signal(message.status === "cancelled" ? "cancelled" : null),
    problem: signal(error && info ? { text: error, info } : null),
    createdAt: message.created_at,
    isTruncated: message.truncated ?? false,
  };
}

export function fromParts(parts: Part[]): Shown[] {
  const calls = new Map<string, Call>();
  const shown: Shown[] = [];
  for (const part of parts) {
    switch (part.type) {
      case "text":
        shown.push({ kind: "text", text: signal(part.text) });
        break;
      case "reasoning":
        if (part.text) shown.push(thoughts(part.text));
        break;
      case "tool_call": {
        const call = emptyCall(part.tool_call_id);
        call.call.value = part;
        calls.set(call.id, call);
        shown.push(call);
        break;
      }
      case "tool_result": {
        const call = calls.get(part.tool_call_id);
        if (call) call.result.value = part;
        break;
      }
      case "image":
      case "file":
        shown.push(attached(part.attachment_id, part.mime, part.name));
        break;
      case "citation":
        shown.push({ kind: "citation", source: part });
        break;
      case "provider_item":
        shown.push({ kind: "step", by: part.kind });
        break;
      case "summary":
        shown.push({ kind: "note", code: "summary", text: part.text });
    }
  }
  return shown;
}

export function thoughts(text: string): Thoughts {
  return { kind: "thoughts", text: signal(text), tookMs: signal(null), isOver: signal(true) };
}

export function emptyCall(id: string): Call {
  return {
    kind: "call",
    id,
    call: signal(null),
    draft: signal(""),
    result: signal(null),
    progress: signal(null),
  };
}

export const attached = (attachmentId: string, mime: string, name?: string | null): Attached => ({
  kind: "file",
  attachmentId,
  mime,
  name: name ?? null,
});

/** What a person reads of a message, to copy it or to write it anew. */
export function plainText(message: ShownMessage): string {
  return message.parts.value
    .flatMap((part) => (part.kind === "text" ? [part.text.value] : []))
    .join("\n\n");
}

