// A text as Markdown, block by block.

import type { ReadonlySignal } from "@preact/signals";
import { parse } from "marked";
import type { VNode } from "preact";
import { useLayoutEffect, useMemo, useRef } from "preact/hooks";

import { t } from "../i18n";
import { type Block, Blocks } from "./blocks";
import { prose } from "./sanitize";

interface Props {
  text: ReadonlySignal<string>;
  /** Nothing more comes. */
  isOver: boolean;
}

export function Markdown({ text, isOver }: Props) {
  const blocks = useMemo(() => new Blocks(), []);
  const kept = useMemo(() => new Map<number, { source: string; node: VNode }>(), []);

  /** The same node for the same block: Preact does not look at it again. */
  const shown = (block: Block): VNode => {
    const { at, source, openCode } = block;
    const isSettled = block.isSettled || isOver;
    if (openCode) return <OpenCode key={at} {...openCode} />;
    const before = kept.get(at);
    if (before?.source === source) return before.node;
    const node = <Rendered key={at} source={source} isSettled={isSettled} />;
    if (isSettled) kept.set(at, { source, node });
    return node;
  };

  return <div class="prose">{blocks.of(text.value).map(shown)}</div>;
}

function Rendered({ source, isSettled }: { source: string; isSettled: boolean }) {
  const element = useRef<HTMLDivElement>(null);
  const html = useMemo(() => prose(parse(source, { async: false })), [source]);
  useLayoutEffect(() => {
    if (element.current) void enrich(element.current, isSettled);
  }, [source, isSettled]);
  const markup = { __html: html as unknown as string };
  return <div ref={element} class="block" dangerouslySetInnerHTML={markup} />;
}

/** While it grows: text that is added to, and nothing that is done again. */
function OpenCode({ language, text }: { language: string; text: string }) {
  const code = useRef<HTMLElement>(null);
  const shown = useRef("");
  useLayoutEffect(() => {
    if (!code.current) return;
    if (text.startsWith(shown.current)) code.current.append(text.slice(shown.current.length));
    else code.current.textContent = text;
    shown.current = text;
  }, [text]);
  return (
    <div class="block">
      <div class="code">
        <div class="code-head">{language}</div>
        <pre>
          <code ref={code} />
        </pre>
      </div>
    </div>
  );
}

/** What a block gets after it is in the page: heads and colours for code, formulas. */
async function enrich(block: HTMLElement, isSettled: boolean): Promise<void> {
  for (const pre of block.querySelectorAll<HTMLPreElement>("pre[data-language]")) frame(pre);
  for (const table of block.querySelectorAll("table")) {
    const around = Object.assign(document.createElement("div"), { className: "table" });
    table.replaceWith(around);
    around.append(table);
  }
  if (!isSettled) return;
  const codes = [...block.querySelectorAll<HTMLElement>("pre[data-language]:not([data-language='']) code")];
  if (codes.length) {
    const { highlighted } = await import("./highlight");
    for (const code of codes) {
      const language = code.parentElement?.dataset["language"] ?? "";
      const html = highlighted(code.textContent ?? "", language);
      if (html) code.innerHTML = html as unknown as string;
    }
  }
  const formulas = [...block.querySelectorAll<HTMLElement>(".formula")];
  if (formulas.length) {
    const { formula } = await import("./math");
    for (const each of formulas) {
      const html = formula(each.textContent ?? "", each.dataset["display"] === "true");
      each.innerHTML = html as unknown as string;
    }
  }
}

function frame(pre: HTMLPreElement): void {
  const head = Object.assign(document.createElement("div"), { className: "code-head" });
  const copy = Object.assign(document.createElement("button"), {
    type: "button",
    className: "quiet",
    textContent: t("copy"),
  });
  copy.addEventListener("click", () => void copyText(pre.textContent ?? "", copy));
  head.append(pre.dataset["language"] ?? "", copy);
  const around = Object.assign(document.createElement("div"), { className: "code" });
  pre.replaceWith(around);
  around.append(head, pre);
}

async function copyText(text: string, button: HTMLButtonElement): Promise<void> {
  await navigator.clipboard.writeText(text);
  button.textContent = t("copied");
  setTimeout(() => (button.textContent = t("copy")), 1500);
}
