import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";

import { t } from "../i18n";
import { Failure } from "../net/connection";
import { setKey } from "../state/models";

export function KeyForm({ provider, onStored }: { provider: string; onStored: () => void }) {
  const field = useRef<HTMLInputElement>(null);
  const problem = useSignal<string | null>(null);
  const mayUseOnce = useSignal(false);
  const isBusy = useSignal(false);

  const store = async (persist: boolean) => {
    const key = field.current?.value.trim();
    if (!key) return;
    isBusy.value = true;
    try {
      await setKey(provider, key, persist);
      if (field.current) field.current.value = "";
      problem.value = null;
      onStored();
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      problem.value = error.message;
      mayUseOnce.value = error.info.code === "keyring_unavailable";
    } finally {
      isBusy.value = false;
    }
  };

  return (
    <form
      class="key-form"
      onSubmit={(event) => {
        event.preventDefault();
        void store(true);
      }}
    >
      <div class="row">
        <input
          ref={field}
          type="password"
          required
          autocomplete="off"
          spellcheck={false}
          aria-label={t("keyFor", { provider })}
          placeholder={t("keyFor", { provider })}
        />
        <button class="main" disabled={isBusy.value}>
          {t("storeKey")}
        </button>
      </div>
      <p class="faint">{t("keyNote")}</p>
      {problem.value && (
        <p class="problem-text" role="alert">
          {problem.value}
        </p>
      )}
      {mayUseOnce.value && (
        <button type="button" disabled={isBusy.value} onClick={() => void store(false)}>
          {t("keyOnce")}
        </button>
      )}
    </form>
  );
}
