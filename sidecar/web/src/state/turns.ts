// The turns that go on, in whichever conversation: each is followed until its end, over lost
// connections too. A turn belongs to the sidecar; this is only who watches it.

import { signal } from "@preact/signals";

import * as connection from "../net/connection";
import type { ChatPayload, ChatResult, RegeneratePayload, StartedMetadata } from "../protocol";
import { emptyMessage, type Problem } from "./message";
import { Writing } from "./writing";

export type Start =
  | { action: "chat"; payload: ChatPayload }
  | { action: "regenerate"; payload: RegeneratePayload };

export interface Watcher {
  /** The turn is accepted, and this message is its answer. */
  onStart(started: StartedMetadata, turn: Turn): void;
  /** `problem` is null for an end without an error. */
  onEnd(turn: Turn, problem: Problem | null): void;
}

export class Turn {
  readonly writing = new Writing(emptyMessage("", "assistant"));
  runId: string | null;
  conversationId: string | null;
  private seq = -1;
  private requestId: string | null = null;
  private readonly start: Start | null;
  private readonly watcher: Watcher;

  constructor(start: Start | null, runId: string | null, where: string | null, watcher: Watcher) {
    this.start = start;
    this.runId = runId;
    this.conversationId = where;
    this.watcher = watcher;
  }

  /** Also after a lost connection: the turn went on without us, or is asked for with its key. */
  follow(): void {
    this.requestId = this.runId
      ? connection.stream("resume", { run_id: this.runId, after_seq: this.seq }, this.take)
      : this.start && connection.stream(this.start.action, this.start.payload, this.take);
  }

  /** What was shown is kept. */
  async stop(): Promise<void> {
    const target = this.runId ? { run_id: this.runId } : { target: this.requestId };
    await connection.request("cancel", target);
  }

  async stopCall(toolCallId: string): Promise<void> {
    await connection.request("cancel", { run_id: this.runId, tool_call_id: toolCallId });
  }

  private readonly take = (frame: connection.RunFrame): void => {
    if (frame.seq !== undefined) this.seq = frame.seq;
    const { message } = this.writing;
    switch (frame.status) {
      case "processing": {
        const started = frame.chunk.metadata;
        this.runId = started.run_id;
        this.conversationId = started.conversation_id;
        message.id = started.message_id;
        message.model = started.model;
        this.watcher.onStart(started, this);
        break;
      }
      case "chunk":
        this.writing.take(frame.chunk);
        break;
      case "complete": {
        this.writing.end();
        const { finish_reason: reason, usage } = frame.result as ChatResult;
        message.status.value = reason === "cancelled" ? "cancelled" : "complete";
        message.usage.value = { ...message.usage.value, ...usage };
        message.finish.value = reason;
        this.end(null);
        break;
      }
      case "error": {
        if (frame.error_info.origin === "network" && frame.error === "") return; // followed again
        this.writing.end();
        message.status.value = "error";
        this.end({ text: frame.error, info: frame.error_info });
      }
    }
  };

  private end(problem: Problem | null): void {
    this.writing.message.problem.value = problem;
    turns.value = turns.value.filter((turn) => turn !== this);
    this.watcher.onEnd(this, problem);
  }
}

export const turns = signal<Turn[]>([]);

export function begin(start: Start, where: string | null, watcher: Watcher): Turn {
  return watch(new Turn(start, null, where, watcher));
}

export function join(runId: string, where: string, watcher: Watcher): Turn {
  const known = turns.value.find((turn) => turn.runId === runId);
  return known ?? watch(new Turn(null, runId, where, watcher));
}

/** At every new connection. */
export function followAgain(): void {
  for (const turn of turns.value) turn.follow();
}

function watch(turn: Turn): Turn {
  turns.value = [...turns.value, turn];
  turn.follow();
  return turn;
}
