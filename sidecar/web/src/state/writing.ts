// A message while its chunks arrive. Text is shown at most every 40 ms, however it comes: a fast
// model sends more pieces than a screen can show.

import { batch, type Signal, signal } from "@preact/signals";

import type { Chunk, RetryMetadata } from "../protocol";
import {
  attached,
  type Call,
  emptyCall,
  fromParts,
  type Shown,
  type ShownMessage,
  type Text,
  type Thoughts,
} from "./message";

const SHOW_MS = 40;

export class Writing {
  /** The wait before the next attempt, while there is one; `until` is a time of `Date.now()`. */
  readonly retry = signal<{ text: string; until: number } | null>(null);
  readonly message: ShownMessage;
  private readonly calls = new Map<string, Call>();
  private readonly unshown = new Map<Signal<string>, string>();
  private timer = 0;
  private thinking: { part: Thoughts; since: number } | null = null;

  constructor(message: ShownMessage) {
    this.message = message;
  }

  take(chunk: Chunk): void {
    const { type } = chunk;
    if (type !== "retry" && this.retry.value) this.retry.value = null;
    if (type !== "reasoning") this.endThoughts();
    switch (type) {
      case "text":
        this.append(this.openText(), chunk.data);
        break;
      case "reasoning":
        this.append(this.openThoughts(), chunk.data);
        break;
      case "tool_arguments":
        this.append(this.call(chunk.metadata.tool_call_id).draft, chunk.data);
        break;
      case "tool_call":
        this.call(chunk.metadata.tool_call_id).call.value = chunk.metadata;
        break;
      case "tool_progress": {
        const { progress, total, tool_call_id: id } = chunk.metadata;
        this.call(id).progress.value = { done: progress, total, text: chunk.data };
        break;
      }
      case "tool_result":
        this.call(chunk.metadata.tool_call_id).result.value = {
          ...chunk.metadata,
          text: chunk.data,
        };
        break;
      case "image":
      case "file": {
        const { attachment_id: id, mime, name } = chunk.metadata;
        this.add(attached(id, mime, name));
        break;
      }
      case "citation":
        this.add({ kind: "citation", source: chunk.metadata });
        break;
      case "provider_item":
        this.add({ kind: "step", by: chunk.metadata.kind });
        break;
      case "notice":
        this.add({ kind: "note", code: chunk.metadata.code, text: chunk.data });
        break;
      case "retry":
        this.wait(chunk.data, chunk.metadata);
        break;
      case "snapshot":
        this.replace(fromParts(chunk.metadata.message.parts));
        break;
      case "usage":
        this.message.usage.value = chunk.metadata;
    }
  }

  /** Nothing more comes. */
  end(): void {
    this.endThoughts();
    this.retry.value = null;
    this.show();
  }

  private wait(text: string, { delay_ms: delay }: RetryMetadata): void {
    this.retry.value = { text, until: Date.now() + delay };
  }

  private replace(parts: Shown[]): void {
    this.show();
    this.calls.clear();
    for (const part of parts) if (part.kind === "call") this.calls.set(part.id, part);
    this.message.parts.value = parts;
  }

  private add<S extends Shown>(part: S): S {
    this.show(); // what came before it is complete
    this.message.parts.value = [...this.message.parts.value, part];
    return part;
  }

  private openText(): Signal<string> {
    const last = this.message.parts.value.at(-1);
    if (last?.kind === "text") return last.text;
    return this.add<Text>({ kind: "text", text: signal("") }).text;
  }

  private openThoughts(): Signal<string> {
    if (!this.thinking) {
      const part: Thoughts = {
        kind: "thoughts",
        text: signal(""),
        tookMs: signal(null),
        isOver: signal(false),
      };
      this.thinking = { part: this.add(part), since: performance.now() };
    }
    return this.thinking.part.text;
  }

  private endThoughts(): void {
    if (!this.thinking) return;
    const { part, since } = this.thinking;
    this.thinking = null;
    part.tookMs.value = performance.now() - since;
    part.isOver.value = true;
  }

  private call(id: string): Call {
    let call = this.calls.get(id);
    if (!call) {
      call = this.add(emptyCall(id));
      this.calls.set(id, call);
    }
    return call;
  }

  private append(target: Signal<string>, piece: string): void {
    this.unshown.set(target, (this.unshown.get(target) ?? "") + piece);
    if (!this.timer) this.timer = window.setTimeout(() => this.show(), SHOW_MS);
  }

  private show(): void {
    clearTimeout(this.timer);
    this.timer = 0;
    batch(() => {
      for (const [target, text] of this.unshown) target.value += text;
    });
    this.unshown.clear();
  }
}
