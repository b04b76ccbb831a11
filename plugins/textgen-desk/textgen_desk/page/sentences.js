// Other sentences for a place of the text, in a popover: those after which the rest fits best come first.

import { putBeside } from "./popover.js";
import { withArrows } from "./tokens.js";

const END = /[.!?…]+["'”’)\]]*(?=\s|$)/g;
const BREAK = /\n\s*\n|\n/g;

/** The part of a text to be written anew, as [start, end]: what is selected, else the sentence at the caret; without the
 * mark that ends it. */
export function part(text, [start, end]) {
  if (start !== end) return [start, end - text.slice(start, end).match(/([.!?…]+["'”’)\]]*)?\s*$/)[0].length];
  const before = text.slice(0, start);
  const ends = [...before.matchAll(END), ...before.matchAll(BREAK)].map((found) => found.index + found[0].length);
  const from = Math.max(0, ...ends);
  const last = text.slice(start).search(/[.!?…]|\n|$/);
  return [from + text.slice(from).search(/\S|$/), Math.max(start + last, from)];
}

/** Where so many sentences or paragraphs of a text end; its length, if it has fewer. */
export function ending(text, count, unit) {
  if (unit === "tokens") return text.length;
  const isSentence = unit === "sentences";
  const ends = [...text.trimStart().matchAll(isSentence ? END : text.includes("\n\n") ? /\n\s*\n/g : BREAK)];
  const found = ends.filter(({ index, 0: { length }, input }) => index + length < input.length)[count - 1];
  return found ? text.length - text.trimStart().length + found.index + (isSentence ? found[0].length : 0) : text.length;
}

/** The popover: `show(box, texts, onTake)` lists texts below a box of the window. */
export function sentences(onClose) {
  const popover = document.getElementById("sentences");
  const list = popover.querySelector("ol");
  withArrows(list);
  const close = () => {
    popover.hidePopover();
    onClose();
  };
  return {
    isOpen: () => popover.matches(":popover-open"),
    close,
    show(box, texts, onTake) {
      list.replaceChildren();
      for (const text of texts) {
        const button = list.appendChild(document.createElement("li")).appendChild(document.createElement("button"));
        Object.assign(button, { type: "button", textContent: text.trim(), onclick: () => (close(), onTake(text)) });
      }
      popover.showPopover();
      putBeside(popover, box);
      list.querySelector("button")?.focus();
    },
  };
}
