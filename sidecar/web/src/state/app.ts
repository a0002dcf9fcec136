// The page as a whole: connected, told of changes, and what is open on top of the conversation.

import { signal } from "@preact/signals";

import * as connection from "../net/connection";
import { Failure } from "../net/connection";
import type { Event, HelloResult } from "../protocol";
import { forget, loadList, remember, setRun } from "./conversations";
import { defaultModel, loadModels, loadProviders } from "./models";
import { approvals, ask, settle } from "./questions";
import { thread } from "./thread";
import { followAgain } from "./turns";

export const about = signal<HelloResult | null>(null);
export const isSidebarOpen = signal(false); // where it is narrow
export const dialog = signal<"help" | "models" | null>(null);
/** Said at the bottom for a while. */
export const toast = signal<string | null>(null);

let toastTimer = 0;

export function say(text: string): void {
  toast.value = text;
  clearTimeout(toastTimer);
  toastTimer = window.setTimeout(() => (toast.value = null), 6000);
}

/** Run what a person asked for; a refusal is said. */
export async function attempt(doing: Promise<unknown>): Promise<void> {
  try {
    await doing;
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (error.message) say(error.message);
  }
}

export function start(): void {
  connection.onEvent(onEvent);
  connection.connect((hello) => void attempt(onHello(hello)));
}

async function onHello(hello: HelloResult): Promise<void> {
  about.value = hello;
  approvals.value = hello.pending.approvals;
  followAgain();
  await Promise.all([thread.restore(), loadList(), loadProviders()]);
  if (defaultModel.value) void attempt(loadModels());
}

function onEvent(event: Event): void {
  switch (event.type) {
    case "conversations.created":
    case "conversations.updated":
      remember(event.data);
      break;
    case "conversations.deleted":
      forget(event.data.conversation_ids);
      if (event.data.conversation_ids.includes(thread.id.value ?? "")) thread.clear();
      break;
    case "runs.started":
      setRun(event.data.conversation_id, event.data.run_id);
      if (event.data.conversation_id === thread.id.value) thread.joinTurn(event.data.run_id);
      break;
    case "runs.ended":
      setRun(event.data.conversation_id, undefined);
      break;
    case "approvals.pending":
      ask(event.data);
      break;
    case "approvals.resolved":
      settle(event.data.approval_id);
      break;
    case "keys.changed":
    case "config.changed":
      void attempt(loadProviders().then(() => loadModels()));
  }
}
