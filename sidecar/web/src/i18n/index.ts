// What the page says itself, in the person's language. What the sidecar says comes as it is.

import { computed, signal } from "@preact/signals";

import { de } from "./de";
import { en } from "./en";

export type Key = keyof typeof en;

const CATALOGUES = { en, de };
export type Language = keyof typeof CATALOGUES;
export const LANGUAGES: Record<Language, string> = { en: "English", de: "Deutsch" };
const KEPT = "language";

const isLanguage = (name: string | null): name is Language => name !== null && name in CATALOGUES;

function preferred(): Language {
  const kept = localStorage.getItem(KEPT);
  if (isLanguage(kept)) return kept;
  return navigator.languages.map((name) => name.slice(0, 2)).find(isLanguage) ?? "en";
}

export const language = signal<Language>(preferred());
const catalogue = computed<Record<Key, string>>(() => CATALOGUES[language.value]);

export function speak(chosen: Language): void {
  language.value = chosen;
  localStorage.setItem(KEPT, chosen);
}

/** The text of this key; `{name}` in it is replaced. */
export function t(key: Key, values: Record<string, string | number> = {}): string {
  return catalogue.value[key].replace(/\{(\w+)\}/g, (_, name: string) => `${values[name] ?? ""}`);
}

export const number = (value: number): string => value.toLocaleString(language.value);

export const time = (at: string): string =>
  new Date(at).toLocaleString(language.value, { dateStyle: "medium", timeStyle: "short" });

export function duration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds.toLocaleString(language.value, { maximumFractionDigits: 1 })} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

export function money(amount: number, currency: string): string {
  const digits = amount < 0.01 ? 4 : 2;
  return amount.toLocaleString(language.value, {
    style: "currency",
    currency,
    minimumFractionDigits: 2,
    maximumFractionDigits: digits,
  });
}
