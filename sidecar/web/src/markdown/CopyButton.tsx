import { useSignal } from "@preact/signals";

import { t } from "../i18n";

const SHOWN_MS = 1500;

export function CopyButton({ text }: { text: () => string }) {
  const isDone = useSignal(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text());
    isDone.value = true;
    setTimeout(() => (isDone.value = false), SHOWN_MS);
  };
  return (
    <button type="button" class="quiet" onClick={() => void copy()}>
      {t(isDone.value ? "copied" : "copy")}
    </button>
  );
}
