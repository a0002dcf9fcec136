// What went wrong, and the button that does something about it.

import { t } from "../i18n";
import { attempt, dialog } from "../state/app";
import { compact } from "../state/conversations";
import type { Problem } from "../state/message";
import { thread } from "../state/thread";
import { Icon } from "./icons";
import { KeyForm } from "./KeyForm";

const OF_THE_MODEL = new Set(["model_not_found", "model_no_tools", "model_no_vision"]);
const OF_THE_KEY = new Set(["key_missing", "key_rejected"]);

export function ProblemView({ problem, retry }: { problem: Problem; retry: () => void }) {
  const { text, info } = problem;
  const id = thread.id.value;
  const isFree = thread.turn.value === null;
  return (
    <div class="problem" role="alert">
      <p>
        <Icon name="warning" />
        <span>{text}</span>
      </p>
      {info.detail && (
        <details>
          <summary>{t("more")}</summary>
          <pre>{info.detail}</pre>
        </details>
      )}
      {OF_THE_KEY.has(info.code) && info.provider && (
        <KeyForm provider={info.provider} onStored={retry} />
      )}
      {isFree && (
        <div class="row">
          {(OF_THE_MODEL.has(info.code) || OF_THE_KEY.has(info.code)) && (
            <button type="button" onClick={() => (dialog.value = "models")}>
              {t("useAnother")}
            </button>
          )}
          {info.code === "context_too_long" && id && (
            <button type="button" onClick={() => void attempt(compact(id).then(retry))}>
              {t("compact")}
            </button>
          )}
          <button type="button" onClick={retry}>
            {t("retry")}
          </button>
        </div>
      )}
    </div>
  );
}
