// Formulas as MathML, in a file of its own that is loaded with the first formula.

import temml from "temml";

import { mathMarkup } from "./sanitize";

const LIMITS = { maxSize: [20, 20] as [number, number], maxExpand: 500, throwOnError: false };

export const formula = (tex: string, isDisplayed: boolean): TrustedHTML =>
  mathMarkup(temml.renderToString(tex, { ...LIMITS, displayMode: isDisplayed }));
