// The only place that makes markup out of text. Trusted Types hold the rest of the page to that.

import DOMPurify, { type Config } from "dompurify";

const LINKS = /^(?:https?:|mailto:)/i;

const PROSE: Config & { RETURN_TRUSTED_TYPE: true } = {
  USE_PROFILES: { html: true },
  FORBID_TAGS: ["style", "form", "input", "button", "textarea", "select", "img", "video", "audio", "source", "svg", "template"],
  FORBID_ATTR: ["style", "id", "name"],
  ALLOWED_URI_REGEXP: LINKS,
  RETURN_TRUSTED_TYPE: true,
};
const FORMULAS: typeof PROSE = {
  USE_PROFILES: { mathMl: true, html: true },
  FORBID_TAGS: ["style", "a"],
  FORBID_ATTR: ["style", "id", "name", "href"],
  RETURN_TRUSTED_TYPE: true,
};

DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

export const prose = (html: string): TrustedHTML => DOMPurify.sanitize(html, PROSE);

export const mathMarkup = (html: string): TrustedHTML => DOMPurify.sanitize(html, FORMULAS);
