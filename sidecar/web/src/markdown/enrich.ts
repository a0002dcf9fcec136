// What a block of prose gets after it is in the page: room for wide tables, colours for the code
// inside of lists and quotes, formulas. The two large libraries are loaded when they are needed.

/** Colours and formulas wait until nothing more comes. */
export async function enrich(block: HTMLElement, isOver: boolean): Promise<void> {
  for (const table of block.querySelectorAll("table")) {
    const around = Object.assign(document.createElement("div"), { className: "table", tabIndex: 0 });
    table.replaceWith(around);
    around.append(table);
  }
  if (!isOver) return;
  for (const code of block.querySelectorAll<HTMLElement>("pre[data-language] code")) {
    const { highlighted } = await import("./highlight");
    const html = highlighted(code.textContent ?? "", code.parentElement?.dataset["language"] ?? "");
    if (html) code.innerHTML = html as unknown as string;
  }
  for (const each of block.querySelectorAll<HTMLElement>(".formula")) {
    const { formula } = await import("./math");
    const html = formula(each.textContent ?? "", each.dataset["display"] === "true");
    each.innerHTML = html as unknown as string;
  }
}
