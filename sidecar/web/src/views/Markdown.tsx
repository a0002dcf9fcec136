// A text as Markdown, block by block.

import type { ReadonlySignal } from "@preact/signals";
import { parse } from "marked";
import type { VNode } from "preact";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";

import { type Block, Blocks } from "../markdown/blocks";
import { enrich } from "../markdown/enrich";
import { prose } from "../markdown/sanitize";
import { CodeBlock } from "./CodeBlock";

interface Props {
  text: ReadonlySignal<string>;
  /** Nothing more comes. */
  isOver: boolean;
}

const GROUP = 6; // blocks that are shown together, and not looked at again

export function Markdown({ text, isOver }: Props) {
  const [, again] = useState(0);
  const blocks = useMemo(() => new Blocks(), []);
  const groups = useMemo<VNode[]>(() => [], []);
  const frame = useRef(0);
  const now = text.value;
  const all = frame.current ? blocks.shown : blocks.of(now); // one step a frame
  const { isBehind } = blocks;

  useEffect(() => {
    if (!isBehind || frame.current) return;
    frame.current = requestAnimationFrame(() => {
      frame.current = 0;
      again((count) => count + 1);
    });
  });
  useEffect(() => () => cancelAnimationFrame(frame.current), []);

  // The same node for the same group: Preact does not look into it again.
  const full = Math.floor((all.length - 1) / GROUP);
  if (groups.length > full) groups.length = Math.max(0, full);
  for (let index = groups.length; index < full; index++) {
    groups.push(group(index, all.slice(index * GROUP, (index + 1) * GROUP), true));
  }
  const rest = all.slice(groups.length * GROUP);
  return (
    <div class="prose">
      {groups}
      {rest.length > 0 && group(groups.length, rest, isOver && !isBehind)}
    </div>
  );
}

const group = (index: number, blocks: readonly Block[], isOver: boolean): VNode => (
  <div key={index} class="group">
    {blocks.map(({ at, source, isSettled, code }) =>
      code ? (
        <CodeBlock key={at} code={code} isOver={isSettled || isOver} />
      ) : (
        <Prose key={at} source={source} isOver={isSettled || isOver} />
      ),
    )}
  </div>
);

function Prose({ source, isOver }: { source: string; isOver: boolean }) {
  const element = useRef<HTMLDivElement>(null);
  const markup = useMemo(() => {
    const html = prose(parse(source, { async: false }));
    return { __html: html as unknown as string };
  }, [source]);
  useLayoutEffect(() => {
    if (element.current) void enrich(element.current, isOver);
  }, [source, isOver]);
  return <div ref={element} class="block" dangerouslySetInnerHTML={markup} />;
}
