import { computed, useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";

import { number, t } from "../i18n";
import type { ModelItem } from "../protocol";
import { attempt, dialog } from "../state/app";
import {
  areModelsLoading,
  choose,
  chosenModel,
  defaultModel,
  loadModels,
  model,
  modelFaults,
  models,
} from "../state/models";
import { Dialog } from "./Dialog";
import { Icon } from "./icons";

const SHOWN = 200; // a router offers hundreds; nobody reads more

export function ModelPicker() {
  const words = useSignal("");
  const field = useRef<HTMLInputElement>(null);
  useEffect(() => {
    field.current?.focus();
    if (!models.value.length) void attempt(loadModels());
  }, []);
  const found = useMemo(
    () =>
      computed(() => {
        const wanted = words.value.toLowerCase().split(/\s+/);
        return models.value
          .filter((each) => wanted.every((word) => each.model.toLowerCase().includes(word)))
          .slice(0, SHOWN);
      }),
    [],
  );
  const pick = (chosen: string | null) => {
    choose(chosen);
    dialog.value = null;
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const [first] = found.value;
    if (event.key === "Enter" && words.value && first) pick(first.model);
  };
  return (
    <Dialog title={t("chooseModel")}>
      <div class="row">
        <label class="search">
          <Icon name="search" />
          <input
            ref={field}
            type="search"
            aria-label={t("filterModels")}
            placeholder={t("filterModels")}
            onInput={(event) => (words.value = event.currentTarget.value)}
            onKeyDown={onKeyDown}
          />
        </label>
        <button
          type="button"
          class="quiet"
          aria-label={t("refresh")}
          title={t("refresh")}
          disabled={areModelsLoading.value}
          onClick={() => void attempt(loadModels(true))}
        >
          <Icon name="retry" />
        </button>
      </div>
      <ul class="models">
        {!words.value && defaultModel.value && (
          <li>
            <button type="button" aria-pressed={chosenModel.value === null} onClick={() => pick(null)}>
              <span>{t("settingsModel")}</span>
              <small>{defaultModel.value}</small>
            </button>
          </li>
        )}
        {found.value.map((each) => (
          <ModelRow key={each.model} item={each} onPick={pick} />
        ))}
      </ul>
      {areModelsLoading.value && <p class="faint">{t("loading")}</p>}
      {!areModelsLoading.value && !found.value.length && (
        <p class="faint">{t(models.value.length ? "nothingFound" : "noModels")}</p>
      )}
      {modelFaults.value.length > 0 && (
        <ul class="faults">
          {modelFaults.value.map((fault) => (
            <li>
              <Icon name="warning" />
              <span>{fault.message}</span>
            </li>
          ))}
        </ul>
      )}
    </Dialog>
  );
}

function ModelRow({ item, onPick }: { item: ModelItem; onPick: (model: string) => void }) {
  const isChosen = model.value === item.model && chosenModel.value !== null;
  return (
    <li>
      <button type="button" aria-pressed={isChosen} onClick={() => onPick(item.model)}>
        <span>{item.name}</span>
        <small>
          {item.provider}
          {item.context && ` · ${number(item.context)}`}
        </small>
      </button>
    </li>
  );
}
