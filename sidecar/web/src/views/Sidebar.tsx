import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

import { t } from "../i18n";
import { quit } from "../net/connection";
import type { Conversation } from "../protocol";
import { attempt, dialog, isSidebarOpen } from "../state/app";
import * as list from "../state/conversations";
import { thread } from "../state/thread";
import { Icon } from "./icons";
import { newChat } from "./keys";
import { Menu } from "./Menu";

const SEARCH_MS = 150; // after the last letter

export function Sidebar() {
  return (
    <>
      <div class="shade" onClick={() => (isSidebarOpen.value = false)} />
      <nav class="sidebar" aria-label={t("conversations")}>
        <div class="sidebar-head">
          <button type="button" class="new" onClick={newChat}>
            <Icon name="new" />
            {t("newChat")}
          </button>
          <Search />
        </div>
        {list.hits.value ? <Hits /> : <List />}
        <footer>
          <button type="button" class="quiet" title={t("keys")} aria-label={t("keys")} onClick={() => (dialog.value = "help")}>
            <Icon name="help" />
          </button>
          <button type="button" class="quiet" onClick={toggleArchived}>
            <Icon name={list.showsArchived.value ? "back" : "archive"} />
            {t(list.showsArchived.value ? "showCurrent" : "archived")}
          </button>
          <span class="space" />
          <button type="button" class="quiet" title={t("quit")} aria-label={t("quit")} onClick={onQuit}>
            <Icon name="power" />
          </button>
        </footer>
      </nav>
    </>
  );
}

function toggleArchived(): void {
  list.showsArchived.value = !list.showsArchived.value;
  void attempt(list.loadList());
}

function onQuit(): void {
  if (confirm(t("reallyQuit"))) void attempt(quit());
}

function Search() {
  const timer = useRef(0);
  const field = useRef<HTMLInputElement>(null);
  const onInput = (words: string) => {
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => void attempt(list.search(words)), SEARCH_MS);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key !== "Escape" || !field.current?.value) return;
    event.stopPropagation();
    field.current.value = "";
    void list.search("");
  };
  return (
    <label class="search">
      <Icon name="search" />
      <input
        id="search"
        ref={field}
        type="search"
        placeholder={t("search")}
        aria-label={t("searchAll")}
        autocomplete="off"
        onInput={(event) => onInput(event.currentTarget.value)}
        onKeyDown={onKeyDown}
      />
    </label>
  );
}

function open(id: string): void {
  isSidebarOpen.value = false;
  void attempt(thread.open(id));
}

function Hits() {
  const hits = list.hits.value ?? [];
  if (!hits.length) return <p class="faint list">{t("nothingFound")}</p>;
  return (
    <ul class="list">
      {hits.map((hit) => (
        <li key={`${hit.conversation_id}/${hit.message_id}`}>
          <button type="button" class="entry hit" onClick={() => open(hit.conversation_id)}>
            <span>{hit.title}</span>
            <small>{hit.snippet}</small>
          </button>
        </li>
      ))}
    </ul>
  );
}

function List() {
  const all = list.listed.value;
  const pinned = all.filter((each) => each.pinned);
  const others = all.filter((each) => !each.pinned);
  if (!all.length) {
    return <p class="faint list">{list.showsArchived.value ? t("nothingFound") : t("noConversations")}</p>;
  }
  return (
    <div class="list">
      {pinned.length > 0 && <h2>{t("pinned")}</h2>}
      <ul>{pinned.map(entry)}</ul>
      {pinned.length > 0 && others.length > 0 && <h2>{t("recent")}</h2>}
      <ul>{others.map(entry)}</ul>
      {list.nextCursor.value && (
        <button type="button" class="quiet" onClick={() => void attempt(list.loadMore())}>
          {t("showMore")}
        </button>
      )}
    </div>
  );
}

const entry = (conversation: Conversation) => (
  <Entry key={conversation.conversation_id} conversation={conversation} />
);

function Entry({ conversation }: { conversation: Conversation }) {
  const { conversation_id: id, title, pinned, archived } = conversation;
  const isRenaming = useSignal(false);
  const isCurrent = thread.id.value === id;
  if (isRenaming.value) {
    return (
      <li>
        <Rename id={id} title={title} onEnd={() => (isRenaming.value = false)} />
      </li>
    );
  }
  const change = (fields: Parameters<typeof list.change>[1]) => attempt(list.change(id, fields));
  return (
    <li class={isCurrent ? "current" : ""}>
      <button
        type="button"
        class="entry"
        aria-current={isCurrent ? "page" : undefined}
        title={title}
        onClick={() => open(id)}
      >
        {conversation.run_id && <span class="pulse" aria-label={t("running")} />}
        <span>{title}</span>
      </button>
      <Menu
        label={t("more")}
        items={[
          { label: t("rename"), icon: "edit", act: () => (isRenaming.value = true) },
          {
            label: t(pinned ? "unpin" : "pin"),
            icon: "pin",
            act: () => void change({ pinned: !pinned }),
          },
          {
            label: t(archived ? "unarchive" : "archive"),
            icon: "archive",
            act: () => void change({ archived: !archived }),
          },
          {
            label: t("exportMarkdown"),
            icon: "download",
            act: () => void attempt(list.exportAs(conversation, "markdown")),
          },
          {
            label: t("exportJson"),
            icon: "download",
            act: () => void attempt(list.exportAs(conversation, "json")),
          },
          { label: t("delete"), icon: "remove", isGrave: true, act: () => remove(conversation) },
        ]}
      />
    </li>
  );
}

function remove({ conversation_id: id, title }: Conversation): void {
  if (confirm(`${title}\n\n${t("reallyDelete")}`)) void attempt(list.remove(id));
}

function Rename({ id, title, onEnd }: { id: string; title: string; onEnd: () => void }) {
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => field.current?.select(), []);
  const store = () => {
    const chosen = field.current?.value.trim();
    if (chosen && chosen !== title) void attempt(list.change(id, { title: chosen }));
    onEnd();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Enter") store();
    else if (event.key === "Escape") onEnd();
    else return;
    event.stopPropagation();
  };
  return (
    <input
      ref={field}
      class="rename"
      aria-label={t("rename")}
      value={title}
      maxLength={200}
      onBlur={store}
      onKeyDown={onKeyDown}
    />
  );
}
