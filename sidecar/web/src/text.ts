// Texts of others, made safe to read.

// Control and bidirectional characters could make a text look like another one.
const HIDDEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

export const visible = (text: string): string =>
  text.replace(HIDDEN, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);

export const json = (value: unknown): string => visible(JSON.stringify(value, null, 2));
