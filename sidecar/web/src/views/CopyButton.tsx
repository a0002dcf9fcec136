import { useSignal } from "@preact/signals";

import { t } from "../i18n";
import { Icon } from "./icons";

const SHOWN_MS = 1500;

export function CopyButton({ text, isWord }: { text: () => string; isWord?: boolean }) {
  const isDone = useSignal(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text());
    isDone.value = true;
    setTimeout(() => (isDone.value = false), SHOWN_MS);
  };
  const label = t(isDone.value ? "copied" : "copy");
  return (
    <button type="button" class="quiet" aria-label={label} title={label} onClick={() => void copy()}>
      {isWord ? label : <Icon name={isDone.value ? "check" : "copy"} />}
    </button>
  );
}
