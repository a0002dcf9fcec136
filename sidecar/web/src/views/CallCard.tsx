// A tool call: what is run, with what, how far it is, and what came of it. Nothing of it is markup.

import { duration, type Key, t } from "../i18n";
import type { ToolContent } from "../protocol";
import { attempt } from "../state/app";
import type { Call, CallResult } from "../state/message";
import { approvals } from "../state/questions";
import { thread } from "../state/thread";
import { json, visible } from "../text";
import { FileView } from "./FileView";
import { Icon } from "./icons";

const STATUS: Record<CallResult["status"], Key> = {
  ok: "statusOk",
  error: "statusError",
  denied: "statusDenied",
  timeout: "statusTimeout",
  cancelled: "statusCancelled",
  unknown: "statusUnknown",
};

export function CallCard({ call }: { call: Call }) {
  const called = call.call.value;
  const result = call.result.value;
  if (!called) {
    return (
      <details class="call working">
        <summary>
          <Icon name="tool" />
          <span class="call-name">{t("calling")}</span>
        </summary>
        <pre>{visible(call.draft.value)}</pre>
      </details>
    );
  }
  const { server, name, invalid_arguments: invalid, truncated } = called;
  return (
    <details class={`call ${result ? result.status : "working"}`}>
      <summary>
        <Icon name="tool" />
        <span class="call-name">
          {server && <span class="faint">{visible(server)} · </span>}
          {visible(name)}
        </span>
        <State call={call} />
      </summary>
      <h3>{t("arguments")}</h3>
      <pre>{invalid ? visible(invalid) : json(called.arguments)}</pre>
      {truncated && <p class="note">{t("argumentsTruncated")}</p>}
      {result && <Result result={result} />}
    </details>
  );
}

function State({ call }: { call: Call }) {
  const result = call.result.value;
  if (result) {
    return (
      <span class="call-state">
        {t(STATUS[result.status])} · {duration(result.duration_ms)}
      </span>
    );
  }
  const isAsked = approvals.value.some((each) => each.tool_call_id === call.id);
  if (isAsked) return <span class="call-state">{t("waitingForYou")}</span>;
  const progress = call.progress.value;
  const turn = thread.turn.value;
  return (
    <span class="call-state">
      {progress?.text && <span>{visible(progress.text)}</span>}
      {progress?.total ? (
        <progress max={progress.total} value={progress.done} />
      ) : (
        !progress?.text && t("running")
      )}
      {turn && (
        <button
          type="button"
          class="quiet"
          aria-label={t("stopCall")}
          title={t("stopCall")}
          onClick={(event) => {
            event.preventDefault();
            void attempt(turn.stopCall(call.id));
          }}
        >
          <Icon name="stop" />
        </button>
      )}
    </span>
  );
}

function Result({ result }: { result: CallResult }) {
  const media = (result.content ?? []).filter((each) => each.type !== "text");
  return (
    <>
      {result.arguments_used && (
        <>
          <h3>{t("argumentsUsed")}</h3>
          <pre>{json(result.arguments_used)}</pre>
        </>
      )}
      <h3>{t("result")}</h3>
      <pre>{visible(result.text)}</pre>
      {result.truncated && <p class="note">{t("resultTruncated")}</p>}
      {media.map((each) => (
        <Medium content={each} />
      ))}
    </>
  );
}

function Medium({ content }: { content: ToolContent }) {
  switch (content.type) {
    case "text":
      return null;
    case "link":
      return (
        <p class="note">
          {visible(content.name)}: <code>{visible(content.uri)}</code>
        </p>
      );
    default: {
      const { attachment_id: id, mime } = content;
      if (!id) return <p class="note">{`${mime}: ${t("noBytes")}`}</p>;
      return <FileView file={{ attachmentId: id, mime, name: null }} />;
    }
  }
}
