// A button with a list of things to do; closes by Escape, by a choice, and by a click elsewhere.

import type { ComponentChildren } from "preact";
import { useRef } from "preact/hooks";

import { Icon } from "./icons";

interface Item {
  label: string;
  icon: Parameters<typeof Icon>[0]["name"];
  act: () => void;
  isGrave?: boolean;
}

export function Menu({ label, items, children }: {
  label: string;
  items: Item[];
  children?: ComponentChildren;
}) {
  const details = useRef<HTMLDetailsElement>(null);
  const close = () => {
    if (details.current) details.current.open = false;
  };
  const onFocusOut = (event: FocusEvent) => {
    if (!details.current?.contains(event.relatedTarget as Node | null)) close();
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key !== "Escape" || !details.current?.open) return;
    event.stopPropagation();
    close();
    details.current.querySelector("summary")?.focus();
  };
  return (
    <details ref={details} class="menu" onFocusOut={onFocusOut} onKeyDown={onKeyDown}>
      <summary class="quiet" aria-label={label} title={label}>
        {children ?? <Icon name="more" />}
      </summary>
      <div class="menu-items" role="group" aria-label={label}>
        {items.map((item) => (
          <button
            type="button"
            class={item.isGrave ? "grave" : ""}
            onClick={() => {
              close();
              item.act();
            }}
          >
            <Icon name={item.icon} />
            {item.label}
          </button>
        ))}
      </div>
    </details>
  );
}
