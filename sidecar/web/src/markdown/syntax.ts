// Markdown as models write it: GitHub's, and formulas between dollars or TeX's own brackets.

import { marked, type TokenizerAndRendererExtension, type Tokens } from "marked";

interface Formula extends Tokens.Generic {
  tex: string;
  isBlock: boolean;
}

const BLOCK = /^(?:\$\$([^$]+?)\$\$|\\\[([\s\S]+?)\\\])(?:\n+|$)/;
const INLINE = /^(?:\\\(([^\n]+?)\\\)|\$(?![\s$])((?:[^$\\\n]|\\.)+?)(?<![\s\\])\$(?![\d$]))/;

const escaped = (text: string) =>
  text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);

function formula(level: "block" | "inline", rule: RegExp, start: RegExp): TokenizerAndRendererExtension {
  const isBlock = level === "block";
  return {
    name: `${level}Formula`,
    level,
    start: (text) => start.exec(text)?.index,
    tokenizer(text) {
      const found = rule.exec(text);
      if (!found) return undefined;
      const tex = (found[1] ?? found[2] ?? "").trim();
      return { type: `${level}Formula`, raw: found[0], tex, isBlock } satisfies Formula;
    },
    renderer(token) {
      const { tex } = token as Formula;
      const name = isBlock ? "div" : "span";
      return `<${name} class="formula" data-display="${isBlock}">${escaped(tex)}</${name}>`;
    },
  };
}

marked.use({
  gfm: true,
  extensions: [
    formula("block", BLOCK, /\$\$|\\\[/),
    formula("inline", INLINE, /\$|\\\(/),
  ],
  renderer: {
    // Markup in an answer is text: what it would do, Markdown does.
    html: ({ text }) => escaped(text),
    // An image's address can carry away what was said: it is opened by a person, or not at all.
    image({ href, text }) {
      return `<a class="image-link" href="${escaped(href)}">${escaped(text || href)}</a>`;
    },
    code({ text, lang }) {
      const language = escaped(/^[\w+#.-]+/.exec(lang ?? "")?.[0] ?? "");
      return `<pre data-language="${language}"><code>${escaped(text)}</code></pre>`;
    },
  },
});
