// The list of conversations, kept up to date by events; and the search through all of them.

import { computed, signal } from "@preact/signals";

import * as connection from "../net/connection";
import { download } from "../net/files";
import type { Conversation, ConversationsUpdatePayload, SearchHit } from "../protocol";

const PAGE = 50;

export const conversations = signal<Conversation[]>([]);
export const showsArchived = signal(false);
export const nextCursor = signal<string | null>(null);
/** One of each conversation; null while nothing is searched for. */
export const hits = signal<SearchHit[] | null>(null);

/** Pinned ones first, then by when they were changed. */
export const listed = computed(() =>
  conversations.value
    .filter((each) => each.archived === showsArchived.value)
    .sort(
      (a, b) =>
        Number(b.pinned) - Number(a.pinned) || b.updated_at.localeCompare(a.updated_at),
    ),
);

export async function loadList(): Promise<void> {
  const payload = { limit: PAGE, archived: showsArchived.value };
  const page = await connection.request("conversations.list", payload);
  conversations.value = page.items;
  nextCursor.value = page.next_cursor;
}

export async function loadMore(): Promise<void> {
  const payload = { limit: PAGE, archived: showsArchived.value, cursor: nextCursor.value };
  const page = await connection.request("conversations.list", payload);
  for (const each of page.items) remember(each);
  nextCursor.value = page.next_cursor;
}

export function remember(changed: Conversation): void {
  const others = conversations.value.filter(
    (each) => each.conversation_id !== changed.conversation_id,
  );
  conversations.value = [changed, ...others];
}

export function forget(ids: string[]): void {
  conversations.value = conversations.value.filter((each) => !ids.includes(each.conversation_id));
}

/** A turn began or ended in it. */
export function setRun(id: string, runId: string | undefined): void {
  conversations.value = conversations.value.map((each) => {
    if (each.conversation_id !== id) return each;
    const { run_id: _, ...rest } = each;
    return runId ? { ...rest, run_id: runId } : rest;
  });
}

let asked = 0;

export async function search(words: string): Promise<void> {
  const mine = ++asked;
  if (!words.trim()) {
    hits.value = null;
    return;
  }
  const found = await connection.request("conversations.search", { q: words, limit: 50 });
  if (mine !== asked) return;
  const first = new Map(found.items.toReversed().map((hit) => [hit.conversation_id, hit]));
  hits.value = [...first.values()].reverse();
}

export async function change(
  id: string,
  fields: Omit<ConversationsUpdatePayload, "conversation_id">,
): Promise<void> {
  remember(await connection.request("conversations.update", { conversation_id: id, ...fields }));
}

export async function remove(id: string): Promise<void> {
  await connection.request("conversations.delete", { conversation_ids: [id] });
  forget([id]);
}

export async function exportAs(
  { conversation_id: id, title }: Conversation,
  format: "markdown" | "json",
): Promise<void> {
  const payload = { conversation_ids: [id], format };
  const file = await connection.request("conversations.export", payload);
  const name = title.replace(/[^\p{L}\p{N} _-]+/gu, " ").trim().slice(0, 60) || "conversation";
  await download(file.attachment_id, `${name}.${format === "json" ? "json" : "md"}`);
}

export async function compact(id: string): Promise<void> {
  await connection.request("conversations.compact", { conversation_id: id });
}
