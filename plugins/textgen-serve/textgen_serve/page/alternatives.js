// The popover with the likeliest tokens at a place: of the token under the mouse, or at the caret.

import { latest } from "./api.js";
import { drawTokens, visible, withArrows } from "./tokens.js";

const RESTS = 200; // milliseconds after which tokens become words: that is ten texts

/** `likeliestAt(place)` gives the tokens, `asWords(place, tokens)` the words that they begin, `onTake(place, text)` takes one, and while `isBusy()` nothing is shown. */
export function alternatives(editor, { likeliestAt, asWords, onTake, isBusy }) {
  const popover = document.getElementById("alternatives");
  let hovered = null;
  let timer;

  const openAlternatives = latest(async (at, token, byKey) => {
    let tokens;
    try {
      tokens = await likeliestAt(at);
    } catch {
      return;
    }
    if (hovered !== at) return;
    const list = popover.querySelector("ol");
    const known = token?.bits != null ? ` · ${token.bits.toFixed(1)} bits · rank ${token.rank}` : "";
    popover.querySelector("#token").textContent = token ? `“${visible(editor.textOf(token))}”${token.isUnknown ? " · not in the vocabulary" : known}` : "Next token";
    const draw = (shown) =>
      drawTokens(list, shown, editor.textOf(token), (text) => {
        closeAlternatives();
        onTake(at, text);
      });
    draw(tokens);
    popover.showPopover();
    const box = editor.box(at, token?.end ?? at);
    const { width, height } = popover.getBoundingClientRect();
    const top = box.bottom + height + 8 < innerHeight ? box.bottom + 4 : Math.max(box.top - height - 4, 8);
    popover.style.setProperty("--x", `${Math.max(8, Math.min(box.left - 16, innerWidth - width - 8))}px`);
    popover.style.setProperty("--y", `${top}px`);
    if (byKey) list.querySelector("button:enabled")?.focus();
    setTimeout(async () => {
      const words = hovered === at ? await asWords(at, tokens).catch(() => tokens) : tokens;
      if (hovered === at) draw(words);
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
    const token = at === null ? undefined : editor.tokenAt(at);
    if (!token) return leave();
    if (token.start === hovered) return clearTimeout(timer);
    clearTimeout(timer);
    timer = setTimeout(() => {
      hovered = token.start;
      openAlternatives(token.start, token, false);
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
    const at = editor.caret;
    const token = editor.tokenAt(at);
    hovered = token?.start ?? at;
    openAlternatives(hovered, token, true);
  }

  return { isOpen: () => popover.matches(":popover-open"), close: closeAlternatives, atCaret: alternativesAtCaret };
}
