// What can be talked to: models, the providers behind them, and whether their keys are there.

import { computed, signal } from "@preact/signals";

import * as connection from "../net/connection";
import type {
  KeyItem,
  LocalServer,
  ModelItem,
  ProviderFault,
  ProviderItem,
} from "../protocol";

const CHOSEN = "model"; // in this browser, for every tab

export const models = signal<ModelItem[]>([]);
export const modelFaults = signal<ProviderFault[]>([]);
export const providers = signal<ProviderItem[]>([]);
export const localServers = signal<LocalServer[]>([]);
export const keys = signal<KeyItem[]>([]);
export const areModelsLoading = signal(false);
/** `provider/model` of the settings. */
export const defaultModel = signal<string | null>(null);
/** The person's choice for what comes next; null is what the settings have. */
export const chosenModel = signal<string | null>(localStorage.getItem(CHOSEN));

export const model = computed(() => chosenModel.value ?? defaultModel.value);

export const modelItem = computed(() => models.value.find((each) => each.model === model.value));

/** Null until it is known. */
export const canChat = computed<boolean | null>(() => {
  const name = model.value;
  if (name === null || providers.value.length === 0) return null;
  const provider = providers.value.find((each) => each.provider === name.split("/")[0]);
  return provider !== undefined && (provider.key_set || !NEEDS_KEY.has(provider.kind));
});

const NEEDS_KEY = new Set(["openai", "anthropic", "gemini"]);

export function choose(chosen: string | null): void {
  chosenModel.value = chosen;
  if (chosen === null) localStorage.removeItem(CHOSEN);
  else localStorage.setItem(CHOSEN, chosen);
}

export async function loadProviders(): Promise<void> {
  const [found, status, config] = await Promise.all([
    connection.request("providers.list", {}),
    connection.request("keys.status", {}),
    connection.request("config.get", {}),
  ]);
  const chat = config.settings["chat"];
  const configured = chat && typeof chat === "object" && !Array.isArray(chat) ? chat["model"] : null;
  defaultModel.value = typeof configured === "string" ? configured : null;
  keys.value = status.items;
  localServers.value = found.found;
  providers.value = found.items;
  const isThere = found.items.some((each) => each.provider === chosenModel.value?.split("/")[0]);
  if (chosenModel.value && !isThere) choose(null);
}

export async function loadModels(refresh = false): Promise<void> {
  areModelsLoading.value = true;
  try {
    const found = await connection.request("models.list", { refresh });
    models.value = found.items;
    modelFaults.value = found.errors;
  } finally {
    areModelsLoading.value = false;
  }
}

/** `persist` puts it into the keyring of this computer, else it is for this run only. */
export async function setKey(provider: string, key: string, persist: boolean): Promise<void> {
  await connection.request("keys.set", { provider, key, persist });
  await loadProviders();
}
