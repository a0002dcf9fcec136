// Nothing to talk to yet: three ways to have something, on one calm screen.

import { useSignal } from "@preact/signals";

import { t } from "../i18n";
import type { LocalServer } from "../protocol";
import { attempt } from "../state/app";
import { choose, defaultModel, loadModels, loadProviders, localServers, models, providers } from "../state/models";
import { KeyForm } from "./KeyForm";

const NAMES: Record<string, string> = { openai: "OpenAI", anthropic: "Anthropic", gemini: "Gemini" };

export function FirstRun() {
  const wanted = defaultModel.value?.split("/")[0];
  const known = providers.value.filter((each) => each.kind in NAMES && !each.key_set);
  const first = known.find((each) => each.provider === wanted) ?? known[0];
  const chosen = useSignal(first?.provider ?? "openai");
  const isDemoThere = providers.value.some((each) => each.provider === "demo");
  return (
    <div class="scroller">
      <section class="first-run">
        <h1>{t("welcome")}</h1>
        <p class="faint">{t("welcomeText")}</p>
        <section>
          <h2>{t("withKey")}</h2>
          <div class="choices" role="radiogroup" aria-label={t("provider")}>
            {known.map(({ provider, kind }) => (
              <label>
                <input
                  type="radio"
                  name="provider"
                  checked={chosen.value === provider}
                  onChange={() => (chosen.value = provider)}
                />
                <span>{NAMES[provider] ?? `${provider} (${NAMES[kind]})`}</span>
              </label>
            ))}
          </div>
          <KeyForm provider={chosen.value} onStored={() => void attempt(useFirst(chosen.value))} />
        </section>
        <section>
          <h2>{t("onThisMachine")}</h2>
          {localServers.value.map((server) => (
            <Local key={server.base_url} server={server} />
          ))}
          {!localServers.value.length && <p class="faint">{t("noLocal")}</p>}
          <button type="button" onClick={() => void attempt(loadProviders())}>
            {t("lookAgain")}
          </button>
        </section>
        <section>
          <h2>{t("justTry")}</h2>
          <p class="faint">{t("justTryText")}</p>
          {isDemoThere ? (
            <button type="button" onClick={() => choose("demo/scripted")}>
              {t("useDemo")}
            </button>
          ) : (
            <code>{t("demoHow")}</code>
          )}
        </section>
      </section>
    </div>
  );
}

/** A key for another provider than the one of the settings: its first model is chosen. */
async function useFirst(provider: string): Promise<void> {
  if (defaultModel.value?.startsWith(`${provider}/`)) return choose(null);
  await loadModels();
  const first = models.value.find((each) => each.provider === provider);
  if (first) choose(first.model);
}

function Local({ server }: { server: LocalServer }) {
  if (server.provider === null) {
    return (
      <p>
        {server.name}: {t("addToSettings", { url: server.base_url })}
      </p>
    );
  }
  return (
    <p class="row">
      {server.models.slice(0, 6).map((name) => (
        <button type="button" onClick={() => choose(name)}>
          {t("useModel", { model: name })}
        </button>
      ))}
    </p>
  );
}
