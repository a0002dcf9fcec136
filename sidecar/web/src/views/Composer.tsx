// Where a message is written: text, files by button, paste and drop, the model, and the way to stop.

import { computed, signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";

import { t } from "../i18n";
import { link } from "../net/connection";
import { send as sendFile } from "../net/files";
import { attempt, dialog } from "../state/app";
import { editing } from "../state/editing";
import { model } from "../state/models";
import { approvals } from "../state/questions";
import { kinds, thread, type ToSend } from "../state/thread";
import { FileView } from "./FileView";
import { Icon } from "./icons";

interface Draft {
  name: string;
  /** Null while it is on its way. */
  id: string | null;
  mime: string;
}

const text = signal("");
const drafts = signal<Draft[]>([]);
const canSend = computed(
  () =>
    link.value === "open" &&
    thread.turn.value === null &&
    drafts.value.every((each) => each.id !== null) &&
    (text.value.trim() !== "" || drafts.value.length > 0),
);

export function Composer() {
  const field = useRef<HTMLTextAreaElement>(null);
  const picker = useRef<HTMLInputElement>(null);
  const id = thread.id.value;
  useEffect(() => {
    if (!approvals.peek().length) field.current?.focus(); // else the question has it
  }, [id]);
  useLayoutEffect(() => {
    const element = field.current;
    if (!element) return;
    element.style.height = "auto";
    element.style.height = `${element.scrollHeight}px`;
  }, [text.value]);

  useEffect(() => {
    document.addEventListener("dragover", onDrag);
    document.addEventListener("drop", onDrag);
    return () => {
      document.removeEventListener("dragover", onDrag);
      document.removeEventListener("drop", onDrag);
    };
  }, []);

  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    } else if (event.key === "ArrowUp" && text.value === "" && !thread.turn.value) {
      const last = thread.branch.value.findLast((each) => each.role === "user");
      if (!last) return;
      event.preventDefault();
      editing.value = last.id;
    }
  };
  const onPaste = (event: ClipboardEvent) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length) return;
    event.preventDefault();
    attach(files);
  };
  const turn = thread.turn.value;
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault();
        send();
      }}
    >
      {drafts.value.length > 0 && (
        <ul class="drafts">
          {drafts.value.map((draft) => (
            <DraftView draft={draft} />
          ))}
        </ul>
      )}
      <textarea
        id="composer"
        ref={field}
        rows={1}
        aria-label={t("message")}
        placeholder={t("placeholder")}
        autocomplete="off"
        value={text.value}
        onInput={(event) => (text.value = event.currentTarget.value)}
        onKeyDown={onKeyDown}
        onPaste={onPaste}
      />
      <div class="composer-row">
        <input
          ref={picker}
          type="file"
          multiple
          hidden
          onChange={(event) => {
            attach([...(event.currentTarget.files ?? [])]);
            event.currentTarget.value = "";
          }}
        />
        <button type="button" class="quiet" aria-label={t("attach")} title={t("attach")} onClick={() => picker.current?.click()}>
          <Icon name="attach" />
        </button>
        <button type="button" class="quiet model" aria-haspopup="dialog" onClick={() => (dialog.value = "models")}>
          {model.value?.replace(/^[^/]+\//, "") ?? t("chooseModel")}
          <Icon name="down" />
        </button>
        <span class="space" />
        {turn ? (
          <button type="button" class="round" aria-label={t("stop")} title={t("stop")} onClick={() => void attempt(turn.stop())}>
            <Icon name="stop" />
          </button>
        ) : (
          <button class="round main" aria-label={t("send")} title={t("send")} disabled={!canSend.value}>
            <Icon name="send" />
          </button>
        )}
      </div>
    </form>
  );
}

function DraftView({ draft }: { draft: Draft }) {
  return (
    <li>
      {draft.id && draft.mime.startsWith("image/") ? (
        <FileView file={{ attachmentId: draft.id, mime: draft.mime, name: draft.name }} />
      ) : (
        <span class="file">
          <Icon name="file" />
          {draft.id ? draft.name : t("sending", { name: draft.name })}
        </span>
      )}
      <button
        type="button"
        class="quiet"
        aria-label={t("removeFile", { name: draft.name })}
        onClick={() => (drafts.value = drafts.value.filter((each) => each !== draft))}
      >
        <Icon name="close" />
      </button>
    </li>
  );
}

/** Anywhere on the page: a browser shows a file that nobody takes in place of the page. */
function onDrag(event: DragEvent): void {
  if (!event.dataTransfer?.types.includes("Files")) return;
  event.preventDefault();
  if (event.type === "drop") attach([...event.dataTransfer.files]);
}

function attach(files: File[]): void {
  for (const file of files) void attempt(receive(file));
}

async function receive(file: File): Promise<void> {
  const draft: Draft = { name: file.name, id: null, mime: file.type };
  drafts.value = [...drafts.value, draft];
  const replace = (by: Draft[]) => {
    drafts.value = drafts.value.flatMap((each) => (each === draft ? by : [each]));
  };
  try {
    const { attachment_id: id, mime } = await sendFile(file);
    kinds.set(id, mime);
    replace([{ name: file.name, id, mime }]);
  } catch (error) {
    replace([]);
    throw error;
  }
}

function send(): void {
  if (!canSend.value) return;
  const parts: ToSend = [];
  if (text.value.trim()) parts.push({ type: "text", text: text.value });
  for (const { id, name } of drafts.value) {
    if (id) parts.push({ type: "attachment", attachment_id: id, name });
  }
  text.value = "";
  drafts.value = [];
  thread.send(parts);
}
