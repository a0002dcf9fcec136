// Cuts a text that grows into blocks of Markdown. What is settled never changes again, so that each
// block is parsed and shown once, however long the answer becomes; only the last one is looked at
// again with each piece.

import { lexer, type Token } from "marked";

import "./syntax";

export interface Block {
  /** Its place in the text: stable, and unique in it. */
  at: number;
  source: string;
  isSettled: boolean;
  /** Of code whose end is not there yet. */
  openCode?: { language: string; text: string };
}

/** A block that has no end in sight is cut here, at a line or a word. */
const LONGEST = 16_384;
const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^\n`]*)(?:\n|$)/;

export class Blocks {
  private settled: Block[] = [];
  private settledTo = 0;
  private text = "";
  private shown: Block[] = [];

  /** The blocks of the text, which is the one before and more, or another one. */
  of(text: string): Block[] {
    if (text === this.text) return this.shown;
    if (!text.startsWith(this.text)) {
      this.settled = [];
      this.settledTo = 0;
    }
    this.text = text;
    const open = this.settle();
    this.shown = open ? [...this.settled, open] : this.settled.slice();
    return this.shown;
  }

  private settle(): Block | null {
    for (;;) {
      const rest = this.text.slice(this.settledTo);
      if (rest === "") return null;
      const code = openCode(rest);
      if (code) return { at: this.settledTo, source: rest, isSettled: false, openCode: code };
      const tokens = lexer(rest.slice(0, 4 * LONGEST));
      const last = tokens.pop();
      for (const token of tokens) this.take(token);
      const open = last?.raw ?? "";
      if (open.length <= LONGEST && this.settledTo + open.length >= this.text.length) {
        return { at: this.settledTo, source: open, isSettled: false };
      }
      if (tokens.length === 0) this.cut(open.length > LONGEST ? LONGEST : open.length);
    }
  }

  private take(token: Token): void {
    this.push(token.raw);
  }

  /** The next line or word begins a block of its own. */
  private cut(length: number): void {
    const piece = this.text.slice(this.settledTo, this.settledTo + length);
    const line = piece.lastIndexOf("\n");
    const word = piece.lastIndexOf(" ");
    const end = line > 0 ? line + 1 : word > 0 ? word + 1 : piece.length;
    this.push(piece.slice(0, end));
  }

  private push(source: string): void {
    if (source.trim()) this.settled.push({ at: this.settledTo, source, isSettled: true });
    this.settledTo += source.length;
  }
}

/** Of a text that begins with a fence and does not have its end: nothing to parse. */
function openCode(text: string): Block["openCode"] | null {
  const begin = FENCE.exec(text);
  if (!begin) return null;
  const [line, fence = "", info = ""] = begin;
  const body = text.slice(line.length);
  const end = new RegExp(`^ {0,3}${fence[0]}{${fence.length},}[ \\t]*$`, "m");
  if (end.test(body)) return null;
  return { language: info.trim().split(/\s/)[0] ?? "", text: body };
}
