// Code that grows: what is there stays as it is, and what comes is added. It stands in pieces of a
// few lines, since a browser lays out a whole text again for each word that is added to it.

import { useLayoutEffect, useRef } from "preact/hooks";

import type { Code } from "../markdown/blocks";
import { CopyButton } from "./CopyButton";

const PIECE = 4096; // characters, and on to the end of the line
const STEP = 16_384; // that are added at once

interface Props {
  code: Code;
  /** Nothing more comes. */
  isOver: boolean;
}

export function CodeBlock({ code: { language, text }, isOver }: Props) {
  const code = useRef<HTMLElement>(null);
  const writer = useRef<Writer | null>(null);
  useLayoutEffect(() => {
    if (!code.current) return;
    writer.current ??= new Writer(code.current);
    writer.current.write(text);
  }, [text]);
  useLayoutEffect(() => {
    if (isOver && language && code.current) void colour(code.current, text, language);
  }, [isOver, language]);
  return (
    <div class="block code">
      <div class="code-head">
        {language}
        <CopyButton text={() => text} isWord />
      </div>
      <pre tabIndex={0}>
        <code ref={code} />
      </pre>
    </div>
  );
}

async function colour(element: HTMLElement, text: string, language: string): Promise<void> {
  const { highlighted } = await import("../markdown/highlight");
  const html = highlighted(text, language);
  if (html) element.innerHTML = html as unknown as string;
}

class Writer {
  private written = 0;
  private last: HTMLElement | null = null;
  private text = "";
  private frame = 0;
  private readonly element: HTMLElement;

  constructor(element: HTMLElement) {
    this.element = element;
  }

  write(text: string): void {
    if (!text.startsWith(this.text)) {
      this.element.replaceChildren();
      this.written = 0;
      this.last = null;
    }
    this.text = text;
    if (!this.frame) this.step();
  }

  private step(): void {
    this.frame = 0;
    const until = Math.min(this.text.length, this.written + STEP);
    while (this.written < until) this.add(until);
    if (this.written < this.text.length) this.frame = requestAnimationFrame(() => this.step());
  }

  private add(until: number): void {
    if (!this.last || (this.last.textContent?.length ?? 0) >= PIECE) {
      this.last = document.createElement("span");
      this.last.className = "piece";
      this.element.append(this.last);
    }
    const line = this.text.indexOf("\n", this.written + PIECE);
    const end = line < 0 ? until : Math.min(line + 1, until);
    this.last.append(this.text.slice(this.written, end));
    this.written = end;
  }
}
