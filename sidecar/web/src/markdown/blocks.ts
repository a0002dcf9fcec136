// Cuts a text that grows into blocks of Markdown. What is settled never changes again, so that each
// block is parsed and shown once, however long the answer becomes; only the last one is looked at
// again with each piece. A text that comes all at once is taken in steps, so that no step is long.

import { lexer, type Token } from "marked";

import "./syntax";

export interface Block {
  /** Its place in the text: stable, and unique in it. */
  at: number;
  source: string;
  isSettled: boolean;
  /** Of a fence that stands by itself; it may have no end yet. */
  code?: Code;
}

export interface Code {
  language: string;
  text: string;
}

// Characters. What is read or settled at once is a few ms of work on a slow machine.
/** A block that has no end in sight is cut here: at a line, an item or a word. */
const LONGEST = 2048;
/** But for a table, whose rows mean nothing without its head. */
const LONGEST_TABLE = 16_384;
const STEP = 4096;
/** Small blocks are shown together up to here: to clean markup costs most by the piece. */
const TOGETHER = 1024;
const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^\n`]*)(?:\n|$)/;

export class Blocks {
  /** There is more to settle: ask again. */
  isBehind = false;
  /** What `of` returned last. */
  shown: readonly Block[] = [];
  private readonly settled: Block[] = [];
  private settledTo = 0;
  private text = "";
  private readTo = 0; // of code that has no end yet

  /** The blocks of the text, which is the one before and more, or another one. */
  of(text: string): readonly Block[] {
    if (!text.startsWith(this.text)) {
      this.settled.length = 0;
      this.settledTo = this.readTo = 0;
    }
    this.text = text;
    const until = this.settledTo + STEP;
    let open: Block | null = null;
    while (open === null && this.settledTo < Math.min(until, text.length)) open = this.next();
    this.isBehind = open === null && this.settledTo < text.length;
    this.shown = open ? [...this.settled, open] : this.settled.slice();
    return this.shown;
  }

  /** Settles at least one block; or returns the last, which is not settled. */
  private next(): Block | null {
    const at = this.settledTo;
    const rest = this.text.slice(at, at + 2 * LONGEST);
    const fence = FENCE.exec(rest);
    if (fence) return this.nextCode(fence);
    const isAll = at + rest.length === this.text.length;
    const tokens = lexer(rest);
    const last = tokens.pop();
    let together = "";
    for (const token of tokens) {
      if (token.type === "code" && FENCE.test(token.raw)) break; // a block in its own right
      together += token.raw;
      if (together.length < TOGETHER) continue;
      this.push(together);
      together = "";
    }
    this.push(together);
    if (!last || this.settledTo > at) return null;
    if (isAll && last.raw.length <= LONGEST) return { at, source: last.raw, isSettled: false };
    return last.type === "table" ? this.nextTable(isAll) : this.cut(last);
  }

  private nextTable(isAll: boolean): Block | null {
    const at = this.settledTo;
    const rest = this.text.slice(at, at + LONGEST_TABLE);
    const [table] = lexer(rest);
    if (isAll && table && table.raw.length === rest.length) {
      return { at, source: rest, isSettled: false };
    }
    this.push(table?.raw ?? rest);
    return null;
  }

  private nextCode([line, fence = "", info = ""]: RegExpExecArray): Block | null {
    const at = this.settledTo;
    const begin = at + line.length;
    const language = /^[\w+#.-]*/.exec(info.trim())?.[0] ?? "";
    const end = new RegExp(`^ {0,3}${fence[0]}{${fence.length},}[ \\t]*(?:\\n|$)`, "gm");
    end.lastIndex = Math.max(begin, this.readTo);
    const found = end.exec(this.text);
    const to = found?.index ?? this.text.length;
    const code: Code = { language, text: this.text.slice(begin, to) };
    this.readTo = this.text.lastIndexOf("\n") + 1;
    const isOver = found !== null && (to + found[0].length < this.text.length || found[0].endsWith("\n"));
    if (!isOver) return { at, source: "", isSettled: false, code };
    this.settled.push({ at, source: "", isSettled: true, code });
    this.settledTo = to + found[0].length;
    return null;
  }

  /** What comes after the cut begins a block of its own. */
  private cut({ type, raw }: Token): null {
    const piece = raw.slice(0, LONGEST);
    const item = type === "list" ? Math.max(...[...piece.matchAll(/\n(?=\S)/g)].map((m) => m.index)) : 0;
    const line = item > 0 ? item : piece.lastIndexOf("\n");
    const word = piece.lastIndexOf(" ");
    this.push(piece.slice(0, line > 0 ? line + 1 : word > 0 ? word + 1 : piece.length));
    return null;
  }

  private push(source: string): void {
    const at = this.settledTo;
    if (source.trim()) this.settled.push({ at, source, isSettled: true });
    this.settledTo += source.length;
  }
}
