// Calls that need consent, above the composer, where the eyes are. The oldest has the focus: A allows
// it once, D denies it.

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

import { t } from "../i18n";
import type { Approval, JsonValue } from "../protocol";
import { attempt } from "../state/app";
import { approvals, resolve } from "../state/questions";
import { thread } from "../state/thread";
import { json, visible } from "../text";
import { Icon } from "./icons";
import { focus } from "./keys";

export function Approvals() {
  const [first] = approvals.value;
  if (!first) return null;
  return (
    <div class="approvals">
      <Ask key={first.approval_id} approval={first} others={approvals.value.length - 1} />
    </div>
  );
}

/** Nobody has read a question sooner: keys and clicks until then were meant for what was there. */
const READ_MS = 500;

type Duration = "once" | "conversation" | "always";

function Ask({ approval, others }: { approval: Approval; others: number }) {
  const { server, name, description, hints, changed } = approval;
  const card = useRef<HTMLElement>(null);
  const edited = useSignal<string | null>(null);
  const problem = useSignal(false);
  const scope = useSignal<"tool" | "server">("tool");
  const isReady = useSignal(false);
  const isElsewhere = approval.conversation_id !== thread.id.value;

  useEffect(() => {
    const isWriting = (document.activeElement as HTMLTextAreaElement | null)?.value;
    if (!isWriting) card.current?.focus();
    const timer = setTimeout(() => (isReady.value = true), READ_MS);
    return () => {
      clearTimeout(timer);
      requestAnimationFrame(giveFocusBack);
    };
  }, []);

  const answer = (decision: "allow" | "deny", duration: Duration) => {
    let changedArguments: Record<string, JsonValue> | null = null;
    if (edited.value !== null && decision === "allow") {
      changedArguments = parsed(edited.value);
      problem.value = changedArguments === null;
      if (problem.value) return;
    }
    void attempt(
      resolve(approval.approval_id, {
        decision,
        duration: changedArguments ? "once" : duration,
        scope: duration === "once" ? "tool" : scope.value,
        arguments: changedArguments,
      }),
    );
  };

  const onKeyDown = (event: KeyboardEvent) => {
    const isPlain = !event.ctrlKey && !event.metaKey && !event.altKey;
    const isTyping = (event.target as HTMLElement).matches("textarea, select");
    if (!isReady.value || event.repeat || !isPlain || isTyping) return;
    if (event.key === "a") answer("allow", "once");
    else if (event.key === "d") answer("deny", "once");
  };

  return (
    <section
      class="ask"
      ref={card}
      tabIndex={-1}
      role="alertdialog"
      aria-keyshortcuts={isReady.value ? "A D" : undefined}
      aria-label={t("asks", { server: visible(server), name: visible(name) })}
      onKeyDown={onKeyDown}
    >
      <h2>
        <Icon name="tool" />
        {t("asks", { server: visible(server), name: visible(name) })}
        {others > 0 && <span class="badge">+{others}</span>}
      </h2>
      <p class="faint">
        {isElsewhere && approval.conversation_id && `${t("asksElsewhere")} · `}
        {[
          hints.read_only && t("hintReadOnly"),
          !hints.read_only && hints.destructive && t("hintDestructive"),
          hints.open_world && t("hintOpenWorld"),
        ]
          .filter(Boolean)
          .join(" · ")}
      </p>
      {description && <p class="description">{visible(description)}</p>}
      {changed && (
        <div class="problem">
          <p>{t("changedSince")}</p>
          <h3>{t("before")}</h3>
          <pre>{visible(changed.before)}</pre>
          <h3>{t("now")}</h3>
          <pre>{visible(changed.after)}</pre>
        </div>
      )}
      {edited.value === null ? (
        <pre class="arguments">{json(approval.arguments)}</pre>
      ) : (
        <textarea
          aria-label={t("arguments")}
          rows={6}
          spellcheck={false}
          value={edited.value}
          onInput={(event) => (edited.value = event.currentTarget.value)}
        />
      )}
      {approval.arguments_truncated && <p class="note">{t("argumentsTruncated")}</p>}
      {problem.value && (
        <p class="problem-text" role="alert">
          {t("notJson")}
        </p>
      )}
      <div class="row">
        <button type="button" class="main" disabled={!isReady.value} onClick={() => answer("allow", "once")}>
          {t("allowOnce")}
        </button>
        {edited.value === null && (
          <>
            <button type="button" disabled={!isReady.value} onClick={() => answer("allow", "conversation")}>
              {t("allowConversation")}
            </button>
            <button type="button" disabled={!isReady.value} onClick={() => answer("allow", "always")}>
              {t("allowAlways")}
            </button>
          </>
        )}
        <button type="button" class="grave" onClick={() => answer("deny", "once")}>
          {t("deny")}
        </button>
        <span class="space" />
        {edited.value === null && !approval.arguments_truncated && (
          <button type="button" class="quiet" onClick={() => (edited.value = JSON.stringify(approval.arguments, null, 2))}>
            <Icon name="edit" />
            {t("editArguments")}
          </button>
        )}
      </div>
      {edited.value === null && (
        <label class="faint scope">
          <select
            aria-label={t("remember")}
            value={scope.value}
            onChange={(event) => (scope.value = event.currentTarget.value as "tool" | "server")}
          >
            <option value="tool">{t("forTool")}</option>
            <option value="server">{t("forServer", { server: visible(server) })}</option>
          </select>
        </label>
      )}
    </section>
  );
}

/** To the composer, unless the person went elsewhere or something else asks. */
function giveFocusBack(): void {
  if (document.activeElement === document.body) focus("composer");
}

function parsed(text: string): Record<string, JsonValue> | null {
  try {
    const value: unknown = JSON.parse(text);
    const isObject = typeof value === "object" && value !== null && !Array.isArray(value);
    return isObject ? (value as Record<string, JsonValue>) : null;
  } catch {
    return null;
  }
}
