// The conversation that is open: its messages as a tree, the branch in use, and what can be done
// with it. One that has no id yet becomes one with its first message.

import { batch, computed, signal } from "@preact/signals";

import * as connection from "../net/connection";
import { Failure } from "../net/connection";
import type { ChatPayload, Conversation, StartedMetadata } from "../protocol";
import { conversations, remember } from "./conversations";
import { fromMessage, type Problem, type ShownMessage } from "./message";
import { chosenModel } from "./models";
import { begin, join, type Start, type Turn, turns, type Watcher } from "./turns";

const PAGE = 100;
const KEPT = "conversation"; // of this tab, for a reload

export type ToSend = NonNullable<ChatPayload["parts"]>;

class Thread {
  readonly id = signal<string | null>(null);
  readonly messages = signal<ReadonlyMap<string, ShownMessage>>(new Map());
  readonly head = signal<string | null>(null);
  readonly hasOlder = signal(false);
  readonly isLoading = signal(false);
  /** What was sent and is not accepted yet. */
  readonly sending = signal<ToSend | null>(null);
  /** Why the last message was refused, with the message. */
  readonly refused = signal<{ problem: Problem; parts: ToSend } | null>(null);
  private turnHere = signal<Turn | null>(null);

  readonly turn = computed(() => this.turnHere.value);

  readonly conversation = computed<Conversation | null>(() => {
    const id = this.id.value;
    return conversations.value.find((each) => each.conversation_id === id) ?? null;
  });

  readonly branch = computed<ShownMessage[]>(() => {
    const branch: ShownMessage[] = [];
    let at = this.head.value;
    while (at !== null) {
      const message = this.messages.value.get(at);
      if (!message) break;
      branch.push(message);
      at = message.parentId;
    }
    return branch.reverse();
  });

  private readonly siblingsOf = computed(() => {
    const found = new Map<string | null, ShownMessage[]>();
    for (const message of this.messages.value.values()) {
      const siblings = found.get(message.parentId);
      if (siblings) siblings.push(message);
      else found.set(message.parentId, [message]);
    }
    return found;
  });

  /** In the order in which they were written, this one included. */
  siblings(message: ShownMessage): ShownMessage[] {
    return this.siblingsOf.value.get(message.parentId) ?? [message];
  }

  /** An empty one. */
  clear(): void {
    batch(() => {
      this.id.value = null;
      this.messages.value = new Map();
      this.head.value = null;
      this.hasOlder.value = false;
      this.sending.value = null;
      this.refused.value = null;
      this.turnHere.value = null;
    });
    sessionStorage.removeItem(KEPT);
  }

  async open(id: string): Promise<void> {
    if (this.id.value !== id) this.clear();
    this.id.value = id;
    sessionStorage.setItem(KEPT, id);
    this.isLoading.value = true;
    try {
      await this.load(id);
    } catch (error) {
      if (error instanceof Failure && error.info.code === "not_found") this.clear();
      else throw error;
    } finally {
      this.isLoading.value = false;
    }
  }

  /** At every new connection: what this tab showed before, as it is now. */
  async restore(): Promise<void> {
    const id = this.id.value ?? sessionStorage.getItem(KEPT);
    if (id && !this.turnHere.value) await this.open(id);
  }

  async loadOlder(): Promise<void> {
    const [oldest] = this.messages.value.values();
    const id = this.id.value;
    if (!oldest || !id) return;
    const payload = { conversation_id: id, before: oldest.id, limit: PAGE };
    const found = await connection.request("conversations.get", payload);
    if (this.id.value !== id) return;
    const older = found.messages.map((message) => [message.message_id, fromMessage(message)] as const);
    batch(() => {
      this.messages.value = new Map([...older, ...this.messages.value]);
      this.hasOlder.value = found.has_more;
    });
  }

  send(parts: ToSend, replaces: string | null = null): void {
    const payload: ChatPayload = {
      parts,
      conversation_id: this.id.value,
      model: chosenModel.value,
      retry_key: crypto.randomUUID(),
    };
    this.refused.value = null;
    if (replaces !== null) {
      payload.replaces = replaces;
      this.head.value = this.messages.value.get(replaces)?.parentId ?? null;
    }
    this.sending.value = parts;
    this.begin({ action: "chat", payload }, parts);
  }

  /** An assistant's message gets a sibling; a user's is answered. */
  regenerate(message: ShownMessage): void {
    const payload = {
      message_id: message.id,
      model: chosenModel.value,
      retry_key: crypto.randomUUID(),
    };
    this.head.value = message.role === "assistant" ? message.parentId : message.id;
    this.begin({ action: "regenerate", payload }, null);
  }

  /** Show this message's branch, down to its newest end. */
  async choose(message: ShownMessage): Promise<void> {
    const id = this.id.value;
    if (!id || this.turnHere.value) return;
    let last = message;
    for (let next: ShownMessage | undefined = message; next; ) {
      last = next;
      next = this.siblingsOf.value.get(next.id)?.at(-1);
    }
    this.head.value = last.id;
    await connection.request("conversations.update", { conversation_id: id, head: last.id });
  }

  /** A turn of this conversation, begun in another window. */
  joinTurn(runId: string): void {
    const id = this.id.value;
    if (id && !this.turnHere.value) this.turnHere.value = join(runId, id, this.watcher());
  }

  private async load(id: string): Promise<void> {
    const payload = { conversation_id: id, limit: PAGE };
    const found = await connection.request("conversations.get", payload);
    if (this.id.value !== id) return;
    remember(found.conversation);
    const going = turns.value.find((turn) => turn.conversationId === id);
    batch(() => {
      this.messages.value = new Map(
        found.messages.map((message) => [message.message_id, fromMessage(message)]),
      );
      this.head.value = found.head;
      this.hasOlder.value = found.has_more;
      if (going) this.show(going);
    });
    const runId = found.conversation.run_id;
    if (going) this.turnHere.value = going;
    else if (runId) this.joinTurn(runId);
  }

  private begin(start: Start, parts: ToSend | null): void {
    this.turnHere.value = begin(start, this.id.value, this.watcher(parts));
  }

  private watcher(parts: ToSend | null = null): Watcher {
    const isHere = (turn: Turn) => this.turnHere.value === turn;
    return {
      onStart: (started, turn) => {
        if (!isHere(turn)) return;
        this.accept(started, turn, parts);
      },
      onEnd: (turn, problem) => {
        if (!isHere(turn)) return;
        batch(() => {
          this.turnHere.value = null;
          this.sending.value = null;
          if (problem && !turn.writing.message.id && parts) this.refused.value = { problem, parts };
        });
      },
    };
  }

  private accept(started: StartedMetadata, turn: Turn, parts: ToSend | null): void {
    batch(() => {
      this.id.value = started.conversation_id;
      sessionStorage.setItem(KEPT, started.conversation_id);
      if (!this.messages.value.has(started.user_message_id)) {
        this.put(
          fromMessage({
            message_id: started.user_message_id,
            parent_id: this.head.value,
            role: "user",
            parts: shownParts(parts, started.user_message),
            status: "complete",
            created_at: new Date().toISOString(),
          }),
        );
      }
      turn.writing.message.parentId = started.user_message_id;
      this.sending.value = null;
      this.show(turn);
    });
  }

  private show({ writing: { message } }: Turn): void {
    if (!message.id) return;
    this.put(message);
    this.head.value = message.id;
  }

  private put(message: ShownMessage): void {
    this.messages.value = new Map(this.messages.value).set(message.id, message);
  }
}

type KeptPart = Parameters<typeof fromMessage>[0]["parts"][number];

/** What is sent names files by their id alone; their types are seen when they are shown. */
function shownParts(parts: ToSend | null, text: string): KeptPart[] {
  if (!parts) return [{ type: "text", text }];
  return parts.map((part): KeptPart =>
    part.type === "text"
      ? part
      : {
          type: "file",
          attachment_id: part.attachment_id,
          mime: kinds.get(part.attachment_id) ?? "",
          ...(part.name ? { name: part.name } : {}),
        },
  );
}

/** The types of the files that this tab has sent, by their ids. */
export const kinds = new Map<string, string>();

export const thread = new Thread();
