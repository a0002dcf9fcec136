// The keys that work wherever the focus is.

import { attempt, dialog, isSidebarOpen } from "../state/app";
import { thread } from "../state/thread";

/** By the id of what it goes to. */
export const focus = (id: string): void => document.getElementById(id)?.focus();

export function newChat(): void {
  thread.clear();
  isSidebarOpen.value = false;
  requestAnimationFrame(() => focus("composer"));
}

export function onKey(event: KeyboardEvent): void {
  const isCommand = event.ctrlKey || event.metaKey;
  const isTyping = (event.target as HTMLElement).matches("input, textarea, select");
  if (isCommand && event.key.toLowerCase() === "k") {
    event.preventDefault();
    isSidebarOpen.value = true;
    requestAnimationFrame(() => focus("search"));
  } else if (isCommand && event.shiftKey && event.key.toLowerCase() === "o") {
    event.preventDefault();
    newChat();
  } else if (isCommand && event.key.toLowerCase() === "b") {
    event.preventDefault();
    isSidebarOpen.value = !isSidebarOpen.value;
  } else if (event.key === "Escape" && !dialog.value) {
    if (isSidebarOpen.value) isSidebarOpen.value = false;
    else if (thread.turn.value) void attempt(thread.turn.value.stop());
  } else if (event.key === "?" && !isTyping) {
    dialog.value = "help";
  }
}
