// The document: plain text in one text node, coloured without an element around any token.

import { WORD } from "./phrases.js";

export const STEPS = [0.5, 1, 2, 3, 4.5, 6, 8]; // bits at which the colour changes
const CHUNK = 512; // characters that are compared at once
const LONGEST = 100; // characters of a word
const NAMES = ["made", "copied", "repeated", "worn", "unknown", ...STEPS.map((_, level) => `s${level + 1}`)];

/** The place at which two texts begin to differ. */
export function parting(one, other) {
  const most = Math.min(one.length, other.length);
  let place = 0;
  while (place + CHUNK <= most && one.slice(place, place + CHUNK) === other.slice(place, place + CHUNK)) place += CHUNK;
  while (place < most && one[place] === other[place]) place++;
  return /[\ud800-\udbff]/.test(one[place - 1] ?? "") ? place - 1 : place; // no half of a character
}

/** How many characters two texts have in common at their ends, after the place at which they part. */
export function alike(one, other, place) {
  const most = Math.min(one.length, other.length) - place;
  let count = 0;
  const chunk = (text) => text.slice(text.length - count - CHUNK, text.length - count);
  while (count + CHUNK <= most && chunk(one) === chunk(other)) count += CHUNK;
  while (count < most && one[one.length - 1 - count] === other[other.length - 1 - count]) count++;
  return /[\udc00-\udfff]/.test(one[one.length - count] ?? "") ? count - 1 : count;
}

/** Tokens of a text in the text that it became by an edit, but for those that the edit touched. */
function carried(tokens, old, text) {
  const start = parting(old, text);
  const [tail, by] = [old.length - alike(old, text, start), text.length - old.length];
  return tokens.flatMap((token) => {
    if (token.end <= start) return [token];
    return token.start >= tail ? [{ ...token, start: token.start + by, end: token.end + by }] : [];
  });
}

export class Editor {
  /** `onEdit(text)` is called after each edit by hand, `onCaret()` when the caret moves. */
  constructor(element, { onEdit, onCaret }) {
    this.element = element;
    this.tokens = [];
    this.marks = { made: [], copied: [], repeated: [], worn: [], unknown: [] };
    this.onEdit = onEdit;
    this.highlights = {}; // by name: the highlight, and what is in it as [start, end, range] in order
    if (CSS.highlights) {
      for (const name of NAMES) {
        this.highlights[name] = { highlight: new Highlight(), drawn: [] };
        CSS.highlights.set(name, this.highlights[name].highlight);
      }
    }
    this.set("");
    element.addEventListener("beforeinput", (event) => this.#before(event));
    element.addEventListener("input", (event) => event.isComposing || this.#edited());
    element.addEventListener("compositionend", () => this.#edited());
    document.addEventListener("selectionchange", () => this.hasFocus && onCaret());
  }

  get hasFocus() {
    return document.activeElement === this.element;
  }

  /** The place of the caret; the end of the text where the caret is elsewhere. */
  get caret() {
    const { focusNode, focusOffset } = getSelection();
    if (!focusNode || !this.element.contains(focusNode)) return this.text.length;
    return this.#place(focusNode, focusOffset);
  }

  /** What is selected, as [start, end]; twice the caret where nothing is. */
  get selected() {
    const { anchorNode, anchorOffset } = getSelection();
    const other = anchorNode && this.element.contains(anchorNode) ? this.#place(anchorNode, anchorOffset) : this.caret;
    return [Math.min(other, this.caret), Math.max(other, this.caret)];
  }

  textOf(token) {
    return token && this.text.slice(token.start, token.end);
  }

  /** Replace the text. Colours stay as far as the text stays; the caret goes where the change ends. */
  set(text) {
    const old = this.text ?? "";
    const kept = parting(old, text);
    this.tokens = this.tokens.filter((token) => token.end <= kept);
    this.text = text;
    this.#lay();
    if (this.hasFocus) this.moveTo(text.length - alike(old, text, kept));
    this.paint();
  }

  /** Add to the end, and keep the end in view if it was. */
  append(piece) {
    const follows = this.hasFocus && this.caret === this.text.length;
    const atEnd = this.#hidden < 80;
    this.text += piece;
    this.node.appendData(piece);
    if (follows) this.moveTo(this.text.length);
    if (atEnd) this.showEnd();
  }

  /** Scroll down to the end of the text, if it is out of sight. */
  showEnd() {
    scrollBy(0, Math.max(this.#hidden, 0));
  }

  /** How many pixels of the text are below the toolbar, which sticks to the bottom of the window. */
  get #hidden() {
    const { nextElementSibling: toolbar } = this.element;
    return this.element.getBoundingClientRect().bottom - toolbar.getBoundingClientRect().top;
  }

  moveTo(caret) {
    this.element.focus({ preventScroll: true });
    getSelection().collapse(this.node, Math.min(caret, this.text.length));
  }

  /** Colour scored tokens of a text, which may have changed since. */
  colour(tokens, text) {
    this.tokens = text === this.text ? tokens : carried(tokens, text, this.text);
    this.paint();
  }

  /** Mark ranges [start, end] of the text as one of NAMES. */
  mark(name, ranges) {
    this.marks[name] = ranges;
    this.paint();
  }

  paint() {
    const ranges = Object.fromEntries(NAMES.map((name) => [name, []]));
    for (const [name, marked] of Object.entries(this.marks)) ranges[name] = marked;
    for (const { start, end, bits } of this.tokens) {
      const level = STEPS.findLastIndex((step) => bits >= step) + 1;
      if (!level) continue;
      const coloured = ranges[`s${level}`];
      if (coloured.at(-1)?.[1] === start) coloured.at(-1)[1] = end;
      else coloured.push([start, end]);
    }
    for (const [name, { highlight, drawn }] of Object.entries(this.highlights)) {
      const wanted = ranges[name].map(([start, end]) => [start, Math.min(end, this.text.length)]).filter(([start, end]) => start < end);
      // Ranges up to the first that differs stay: painting thousands anew takes long.
      const same = wanted.findIndex(([start, end], i) => drawn[i]?.[0] !== start || drawn[i][1] !== end);
      const kept = same < 0 ? wanted.length : same;
      for (const [, , range] of drawn.splice(kept)) highlight.delete(range);
      for (const [start, end] of wanted.slice(kept)) {
        const range = this.#range(start, end);
        drawn.push([start, end, range]);
        highlight.add(range);
      }
    }
  }

  /** The first stretch between two places that has no tokens, as [start, end]. */
  unscored(from, to) {
    let place = from;
    for (const { start, end } of this.tokens) {
      if (start > place || place >= to) return [Math.min(place, to), Math.min(start, to)];
      place = Math.max(place, end);
    }
    return [Math.min(place, to), to];
  }

  /** The token at a place of the text. */
  tokenAt(place) {
    return this.tokens.find((token) => token.start <= place && place < token.end);
  }

  /** The word at a place, or else the token, as [start, end], from the token with which the word begins. */
  wordAt(place) {
    const token = this.tokenAt(place);
    const letter = place + this.text.slice(place, token?.end ?? place).search(/\S|$/);
    const from = Math.max(0, place - LONGEST);
    for (const { 0: word, index } of this.text.slice(from, place + LONGEST).matchAll(WORD)) {
      const start = from + index;
      if (start <= letter && letter < start + word.length) return [this.tokenAt(start)?.start ?? start, start + word.length];
    }
    return token ? [token.start, token.end] : [place, place];
  }

  /** The place of the character under a point of the window; null where there is none. */
  placeAt(x, y) {
    const found = document.caretPositionFromPoint?.(x, y);
    const old = found ? null : document.caretRangeFromPoint?.(x, y);
    const node = found?.offsetNode ?? old?.startContainer;
    if (node !== this.node) return null;
    const place = found?.offset ?? old.startOffset;
    for (const each of [place, place - 1]) {
      if (each < 0 || each >= this.text.length) continue;
      for (const box of this.#live(each, each + 1).getClientRects()) {
        if (box.left <= x && x <= box.right && box.top <= y && y <= box.bottom) return each;
      }
    }
    return null;
  }

  /** The box of a stretch of the text in the window. */
  box(start, end) {
    const boxes = this.#live(Math.max(0, Math.min(start, this.text.length - 1)), Math.max(start, end)).getClientRects();
    return boxes[0] ?? this.element.lastChild.getBoundingClientRect();
  }

  /** What browsers would turn into elements is put into the text here. Undo and redo are the tree's. */
  #before(event) {
    const { inputType: kind, data, dataTransfer } = event;
    if (kind.startsWith("history")) return event.preventDefault();
    let text = dataTransfer?.getData("text/plain") ?? data ?? "";
    if (kind === "insertParagraph" || kind === "insertLineBreak") text = "\n";
    else if (!kind.startsWith("insert") || !/[\r\n]/.test(text)) return;
    event.preventDefault();
    text = text.replace(/\r\n?/g, "\n");
    const range = event.getTargetRanges()[0] ?? getSelection().getRangeAt(0);
    const start = this.#place(range.startContainer, range.startOffset);
    const end = this.#place(range.endContainer, range.endOffset);
    this.node.replaceData(start, end - start, text);
    getSelection().collapse(this.node, start + text.length);
    this.#edited();
  }

  #edited() {
    const text = this.element.textContent;
    this.tokens = carried(this.tokens, this.text, text); // until the text is scored anew
    const caret = this.caret;
    this.text = text;
    if (this.element.childNodes.length !== 2 || this.element.firstChild !== this.node || this.node.data !== text) {
      this.#lay();
      this.moveTo(caret);
    }
    this.element.toggleAttribute("data-empty", !text);
    this.paint();
    this.onEdit(text);
  }

  /** One text node, and a line break after it that lets the caret stand behind a final newline. */
  #lay() {
    for (const each of Object.values(this.highlights)) {
      each.highlight.clear();
      each.drawn = [];
    }
    this.node = new Text(this.text);
    this.element.replaceChildren(this.node, document.createElement("br"));
    this.element.toggleAttribute("data-empty", !this.text);
  }

  #place(node, offset) {
    const range = new Range();
    range.setStart(this.element, 0);
    range.setEnd(node, offset);
    return range.toString().length;
  }

  #range(start, end) {
    const node = this.node;
    return new StaticRange({ startContainer: node, startOffset: start, endContainer: node, endOffset: end });
  }

  #live(start, end) {
    const range = new Range();
    range.setStart(this.node, Math.min(start, this.text.length));
    range.setEnd(this.node, Math.min(end, this.text.length));
    return range;
  }
}
