// The popover with the likeliest tokens at a place: of the token under the mouse, or at the caret.

import { latest } from "./api.js";
import { putBeside } from "./popover.js";
import { drawTokens, visible, withArrows } from "./tokens.js";

const RESTS = 200; // milliseconds after which tokens become words: that is ten texts

/** `likeliestAt(place)` gives the tokens, `asWords(place, tokens)` the words that they begin, `onTake(start, end, token)` puts
 * one in the place of what is there, and while `isBusy()` nothing is shown. */
export function alternatives(editor, { likeliestAt, asWords, onTake, isBusy }) {
  const popover = document.getElementById("alternatives");
  let hovered = null;
  let timer;

  const openAlternatives = latest(async (at, end, byKey) => {
    const token = at < end ? editor.tokenAt(at) : undefined;
    let tokens;
    try {
      tokens = await likeliestAt(at);
    } catch {
      return;
    }
    if (hovered !== at) return;
    const list = popover.querySelector("ol");
    const [title, word] = [popover.querySelector("#token"), editor.text.slice(at, end)];
    const known = token?.bits != null ? ` · guess ${token.rank}` : "";
    title.textContent = token ? `In place of “${visible(word.trim() || word)}”${token.isUnknown ? " · new to the model" : known}` : "Next";
    title.title = known && `${token.bits.toFixed(1)} bits, rank ${token.rank}, of the token “${visible(editor.textOf(token))}”`;
    const draw = (shown) =>
      drawTokens(list, shown, editor.textOf(token), (taken) => {
        closeAlternatives();
        onTake(at, end, taken);
      });
    draw(tokens);
    popover.showPopover();
    putBeside(popover, editor.box(at, end));
    if (byKey) list.querySelector("button:enabled")?.focus();
    setTimeout(async () => {
      const words = hovered === at ? await asWords(at, tokens).catch(() => tokens) : tokens;
      if (hovered === at) draw(words.filter(({ word }) => word?.trim() !== ""));
    }, RESTS);
  });

  function closeAlternatives() {
    clearTimeout(timer);
    hovered = null;
    if (!popover.matches(":popover-open")) return;
    const hadFocus = popover.contains(document.activeElement);
    popover.hidePopover();
    if (hadFocus) editor.element.focus();
  }

  function hover(event) {
    if (event.pointerType === "touch" || event.buttons || isBusy()) return;
    const at = editor.placeAt(event.clientX, event.clientY);
    const [start, end] = at === null || !editor.tokenAt(at) ? [0, 0] : editor.wordAt(at);
    if (start === end) return leave();
    clearTimeout(timer);
    if (start === hovered) return;
    timer = setTimeout(() => {
      hovered = start;
      openAlternatives(start, end, false);
    }, 120);
  }

  function leave() {
    clearTimeout(timer);
    timer = setTimeout(closeAlternatives, 250);
  }

  editor.element.addEventListener("pointermove", hover);
  editor.element.addEventListener("pointerleave", leave);
  popover.addEventListener("pointerenter", () => clearTimeout(timer));
  popover.addEventListener("pointerleave", leave);
  addEventListener("scroll", closeAlternatives, { passive: true });
  withArrows(popover.querySelector("ol"));

  function alternativesAtCaret() {
    const [start, end] = editor.wordAt(editor.caret);
    hovered = start;
    openAlternatives(start, end, true);
  }

  return { isOpen: () => popover.matches(":popover-open"), close: closeAlternatives, atCaret: alternativesAtCaret };
}
