// What is shown as a whole: the conversations, the one that is open, and what lies on top.

import { effect } from "@preact/signals";
import { useEffect } from "preact/hooks";

import { language, t } from "../i18n";
import { link } from "../net/connection";
import { about, dialog, isSidebarOpen, toast } from "../state/app";
import { model } from "../state/models";
import { thread } from "../state/thread";
import { Chat } from "./Chat";
import { Help } from "./Help";
import { onKey } from "./keys";
import { ModelPicker } from "./ModelPicker";
import { Sidebar } from "./Sidebar";

export function App() {
  useEffect(() => {
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, []);
  if (link.value === "refused") {
    return <Notice title={t("refusedTitle")} texts={[t("refusedText"), t("refusedCode")]} />;
  }
  if (link.value === "stopped") {
    return <Notice title={t("stoppedTitle")} texts={[t("stoppedText")]} />;
  }
  return (
    <div class={`page ${isSidebarOpen.value ? "sidebar-open" : ""}`}>
      <Sidebar />
      {about.value || model.value ? <Chat /> : <main class="chat" />}
      <Connection />
      {dialog.value === "help" && <Help />}
      {dialog.value === "models" && <ModelPicker />}
      <div class="toast" role="status">
        {toast.value && <p>{toast.value}</p>}
      </div>
    </div>
  );
}

function Connection() {
  const said = { connecting: "connecting", gone: "gone", full: "full" } as const;
  const state = link.value;
  if (state === "open" || !(state in said)) return null;
  return (
    <p class={`connection ${state}`} role="status">
      {t(said[state as keyof typeof said])}
    </p>
  );
}

function Notice({ title, texts }: { title: string; texts: string[] }) {
  return (
    <main class="notice">
      <h1>{title}</h1>
      {texts.map((text) => (
        <p>{text}</p>
      ))}
    </main>
  );
}

effect(() => {
  document.documentElement.lang = language.value;
  document.title = thread.conversation.value?.title ?? "sidecar";
});
