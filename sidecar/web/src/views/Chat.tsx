// The open conversation: its messages, what asks, and where the next one is written.

import { useEffect, useLayoutEffect, useRef } from "preact/hooks";

import { number, t } from "../i18n";
import type { Context } from "../protocol";
import { attempt, isSidebarOpen } from "../state/app";
import { canChat, modelItem } from "../state/models";
import { approvals } from "../state/questions";
import { thread } from "../state/thread";
import { Approvals } from "./Approval";
import { Composer } from "./Composer";
import { FirstRun } from "./FirstRun";
import { Icon } from "./icons";
import { Answering, MessageView, Refused, Sending } from "./Message";

const NEAR_END = 120; // pixels: whoever is so near the end follows it

export function Chat() {
  const isEmpty = !thread.branch.value.length && !thread.sending.value && !thread.isLoading.value;
  return (
    <main class="chat">
      <header class="chat-head">
        <button
          type="button"
          class="quiet"
          aria-label={t("sidebar")}
          aria-expanded={isSidebarOpen.value}
          onClick={() => (isSidebarOpen.value = !isSidebarOpen.value)}
        >
          <Icon name="menu" />
        </button>
        <h1>{thread.conversation.value?.title ?? ""}</h1>
        <Meter />
      </header>
      {isEmpty && canChat.value === false ? <FirstRun /> : <Messages isEmpty={isEmpty} />}
      <div class="dock">
        <Approvals />
        <Composer />
      </div>
    </main>
  );
}

function Messages({ isEmpty }: { isEmpty: boolean }) {
  const scroller = useRef<HTMLDivElement>(null);
  const follows = useRef(true);

  useLayoutEffect(() => {
    const element = scroller.current;
    if (!element) return undefined;
    const toEnd = () => {
      if (follows.current) element.scrollTop = element.scrollHeight;
    };
    const watcher = new ResizeObserver(toEnd);
    if (element.firstElementChild) watcher.observe(element.firstElementChild);
    watcher.observe(element);
    return () => watcher.disconnect();
  }, [isEmpty]);

  const onScroll = () => {
    const element = scroller.current;
    if (!element) return;
    follows.current =
      element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_END;
  };

  const id = thread.id.value;
  const isSending = thread.sending.value !== null;
  useEffect(() => {
    follows.current = true;
    if (scroller.current) scroller.current.scrollTop = scroller.current.scrollHeight;
  }, [id, isSending]);

  if (isEmpty && !thread.refused.value) {
    return (
      <div class="empty">
        <p>{t("empty")}</p>
      </div>
    );
  }
  const turn = thread.turn.value;
  return (
    <div class="scroller" ref={scroller} onScroll={onScroll} tabIndex={0} aria-label={t("conversation")}>
      <div class="messages">
        {thread.hasOlder.value && (
          <button type="button" class="quiet older" onClick={() => void attempt(thread.loadOlder())}>
            {t("older")}
          </button>
        )}
        {thread.branch.value.map((message) => (
          <MessageView key={message.id} message={message} />
        ))}
        <Sending />
        {turn && <Answering turn={turn} />}
        <Refused />
        <Announcer />
      </div>
    </div>
  );
}

/** Says for a screen reader that an answer is there, once, and not piece by piece. */
function Announcer() {
  const last = thread.branch.value.at(-1);
  const isOver = last?.role === "assistant" && last.status.value !== "streaming";
  const text = isOver && !thread.turn.value ? t("answerReady") : "";
  return (
    <p class="unseen" role="log" aria-live="polite">
      {approvals.value.length ? t("waitingForYou") : text}
    </p>
  );
}

/** How full the model's window is. */
function Meter() {
  const used = [...thread.branch.value].reverse().find((each) => each.usage.value?.context);
  const context: Context | undefined = used?.usage.value?.context;
  const limit = context?.limit ?? modelItem.value?.context;
  if (!context) return null;
  if (!limit) return <span class="faint">{t("contextUsed", { used: number(context.used) })}</span>;
  const text = t("contextOf", { used: number(context.used), limit: number(limit) });
  return (
    <span class="meter" title={text}>
      <progress max={limit} value={context.used} aria-label={text} />
      <span class="faint">{Math.round((100 * context.used) / limit)} %</span>
    </span>
  );
}
