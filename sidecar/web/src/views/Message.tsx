import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

import { duration, type Key, money, number, t, time } from "../i18n";
import type { Usage } from "../protocol";
import { attempt } from "../state/app";
import { editing } from "../state/editing";
import { plainText, type Problem, type Shown, type ShownMessage } from "../state/message";
import { thread } from "../state/thread";
import type { Turn } from "../state/turns";
import { CallCard } from "./CallCard";
import { CopyButton } from "./CopyButton";
import { FileView } from "./FileView";
import { Icon } from "./icons";
import { Markdown } from "./Markdown";
import { ProblemView } from "./ProblemView";


export function MessageView({ message }: { message: ShownMessage }) {
  const isMine = message.role === "user";
  if (isMine && editing.value === message.id) return <Editor message={message} />;
  return (
    <article class={isMine ? "mine" : "answer"} aria-label={isMine ? t("you") : (message.model ?? "")}>
      {message.isTruncated && <p class="note">{t("truncatedMessage")}</p>}
      <Parts message={message} />
      <Ending message={message} />
      <Actions message={message} />
    </article>
  );
}

function Parts({ message }: { message: ShownMessage }) {
  const parts = message.parts.value;
  const isWritten = message.status.value !== "streaming";
  const isMine = message.role === "user";
  const citations = parts.filter((part) => part.kind === "citation");
  return (
    <>
      {parts.map((part, index) => (
        <PartView key={index} part={part} isMine={isMine} isOver={isWritten || index < parts.length - 1} />
      ))}
      {citations.length > 0 && (
        <p class="sources">
          {t("sources")}:{" "}
          {citations.map(({ source: { url, title } }) =>
            url?.startsWith("http") ? (
              <a href={url} target="_blank" rel="noopener noreferrer">
                {title ?? url}
              </a>
            ) : (
              <span>{title ?? url}</span>
            ),
          )}
        </p>
      )}
    </>
  );
}

function PartView({ part, isMine, isOver }: { part: Shown; isMine: boolean; isOver: boolean }) {
  switch (part.kind) {
    case "text":
      return isMine ? <p class="said">{part.text}</p> : <Markdown text={part.text} isOver={isOver} />;
    case "thoughts":
      return <Thoughts part={part} />;
    case "call":
      return <CallCard call={part} />;
    case "file":
      return <FileView file={part} />;
    case "note":
      return <p class="note">{part.code === "summary" ? t("summary") : part.text}</p>;
    case "step":
      return <p class="note">{t("step", { name: part.by })}</p>;
    case "citation":
      return null;
  }
}

function Thoughts({ part }: { part: Extract<Shown, { kind: "thoughts" }> }) {
  const took = part.tookMs.value;
  const head = !part.isOver.value
    ? t("thinking")
    : took === null
      ? t("thoughts")
      : t("thought", { time: duration(took) });
  return (
    <details class={`thoughts ${part.isOver.value ? "" : "working"}`}>
      <summary>{head}</summary>
      <div>{part.text}</div>
    </details>
  );
}

const FINISH: Partial<Record<string, Key>> = {
  length: "finishLength",
  step_limit: "finishStepLimit",
  content_filter: "finishContentFilter",
  refusal: "finishRefusal",
  cancelled: "finishCancelled",
};

function Ending({ message }: { message: ShownMessage }) {
  const finish = FINISH[message.finish.value ?? ""];
  const problem = message.problem.value;
  return (
    <>
      {finish && <p class="note">{t(finish)}</p>}
      {message.status.value === "interrupted" && !problem && <p class="note">{t("interrupted")}</p>}
      {problem && <ProblemView problem={problem} retry={() => thread.regenerate(message)} />}
    </>
  );
}

function Actions({ message }: { message: ShownMessage }) {
  const isMine = message.role === "user";
  const isFree = thread.turn.value === null;
  if (message.status.value === "streaming") return null;
  return (
    <footer class="actions">
      <Variants message={message} />
      <CopyButton text={() => plainText(message)} />
      {isMine && isFree && (
        <button type="button" class="quiet" aria-label={t("edit")} title={t("edit")} onClick={() => (editing.value = message.id)}>
          <Icon name="edit" />
        </button>
      )}
      {!isMine && isFree && (
        <button type="button" class="quiet" aria-label={t("regenerate")} title={t("regenerate")} onClick={() => thread.regenerate(message)}>
          <Icon name="retry" />
        </button>
      )}
      {!isMine && <Facts message={message} />}
    </footer>
  );
}

function Variants({ message }: { message: ShownMessage }) {
  const siblings = thread.siblings(message).filter((each) => each.role === message.role);
  if (siblings.length < 2) return null;
  const at = siblings.indexOf(message);
  const go = (to: ShownMessage | undefined) => to && void attempt(thread.choose(to));
  return (
    <span class="variants" role="group" aria-label={t("variant", { at: at + 1, count: siblings.length })}>
      <button type="button" class="quiet" disabled={at === 0} aria-label={t("previousVariant")} onClick={() => go(siblings[at - 1])}>
        <Icon name="back" />
      </button>
      {at + 1}/{siblings.length}
      <button type="button" class="quiet" disabled={at === siblings.length - 1} aria-label={t("nextVariant")} onClick={() => go(siblings[at + 1])}>
        <Icon name="forward" />
      </button>
    </span>
  );
}

function Facts({ message }: { message: ShownMessage }) {
  const usage = message.usage.value;
  return (
    <span class="facts faint" title={time(message.createdAt)}>
      {message.model}
      {usage && <UsageView usage={usage} />}
    </span>
  );
}

function UsageView({ usage }: { usage: Usage }) {
  const { cost, input, output } = usage;
  const amount = cost && money(cost.amount, cost.currency);
  return (
    <span>
      {t("tokens", { input: number(input), output: number(output) })}
      {amount && ` · ${cost.estimated ? t("estimated", { cost: amount }) : amount}`}
    </span>
  );
}

function Editor({ message }: { message: ShownMessage }) {
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    const element = field.current;
    if (!element) return;
    element.focus();
    element.setSelectionRange(element.value.length, element.value.length);
  }, []);
  const files = message.parts.value.flatMap((part) => (part.kind === "file" ? [part] : []));
  const close = () => {
    editing.value = null;
  };
  const send = () => {
    const text = field.current?.value.trim();
    if (!text && !files.length) return;
    close();
    const attachments = files.map(({ attachmentId, name }) => ({
      type: "attachment" as const,
      attachment_id: attachmentId,
      name,
    }));
    thread.send([...(text ? [{ type: "text" as const, text }] : []), ...attachments], message.id);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      close();
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    }
  };
  return (
    <article class="mine editor">
      <textarea ref={field} aria-label={t("edit")} defaultValue={plainText(message)} rows={3} onKeyDown={onKeyDown} />
      {files.map((file) => (
        <FileView file={file} />
      ))}
      <div class="row">
        <button type="button" onClick={close}>
          {t("cancel")}
        </button>
        <button type="button" class="main" onClick={send}>
          {t("editAndSend")}
        </button>
      </div>
    </article>
  );
}

/** What was sent, until it is accepted. */
export function Sending() {
  const parts = thread.sending.value;
  if (!parts) return null;
  return (
    <article class="mine sending" aria-label={t("you")}>
      {parts.map((part) =>
        part.type === "text" ? <p class="said">{part.text}</p> : <p class="note">{part.name}</p>,
      )}
    </article>
  );
}

/** That something comes, and when, where there is a wait. */
export function Answering({ turn }: { turn: Turn }) {
  const retry = turn.writing.retry.value;
  if (retry) return <Countdown {...retry} />;
  const last = turn.writing.message.parts.value.at(-1);
  if (last?.kind === "text" || last?.kind === "call" || last?.kind === "thoughts") return null;
  return <p class="working dots" aria-hidden="true" />;
}

function Countdown({ text, until }: { text: string; until: number }) {
  const seconds = useSignal(0);
  useEffect(() => {
    const tick = () => (seconds.value = Math.max(0, Math.ceil((until - Date.now()) / 1000)));
    tick();
    const timer = setInterval(tick, 250);
    return () => clearInterval(timer);
  }, [until]);
  return (
    <p class="note retry">
      {text} {t("retryIn", { seconds: seconds.value })}
    </p>
  );
}

/** A message that was refused before there was an answer. */
export function Refused() {
  const refused = thread.refused.value;
  if (!refused) return null;
  const problem: Problem = refused.problem;
  return <ProblemView problem={problem} retry={() => thread.send(refused.parts)} />;
}
