// Two drafts beside each other: each coloured by surprise, with what differs marked.

import { BOOK, latest, score } from "./api.js";
import { STEPS } from "./editor.js";

const MOST = 1 << 24; // pairs of words that are compared
const VERSIONS = 100; // that are listed
const SHOWN = 60; // characters of a draft in a list
const REPLACED = 12; // characters, at least, of a version that is listed

/** The dialog: `open(model, drafts)` shows the first two of `drafts`, each {label, text(), use()}. */
export function comparison() {
  const dialog = document.getElementById("drafts");
  const sides = [...dialog.querySelectorAll("section")].map((side) => ({
    choice: side.querySelector("select"),
    button: side.querySelector("button"),
    facts: side.querySelector("p"),
    text: side.querySelector("div"),
  }));
  let model, drafts;

  const draw = latest(async () => {
    for (const { facts } of sides) facts.textContent = "…";
    try {
      const texts = await Promise.all(sides.map(({ choice }) => drafts[choice.value].text()));
      const scored = await Promise.all(texts.map((text) => (text && text.length <= BOOK ? score(model, text) : { tokens: [] })));
      const marked = differences(...texts);
      sides.forEach(({ facts, text }, i) => {
        const { tokens } = scored[i];
        fill(text, texts[i], tokens, marked[i]);
        const where = marked[i].length ? `, ${mean(tokens, marked[i])} where they differ` : "";
        facts.textContent = `surprise ${mean(tokens, [[0, Infinity]])}${where}`;
        facts.title = "bits per character";
      });
    } catch (error) {
      for (const { facts } of sides) facts.textContent = error.message;
    }
  });

  for (const { choice, button } of sides) {
    choice.addEventListener("change", () => draw());
    button.addEventListener("click", () => {
      dialog.close();
      drafts[choice.value].use();
    });
  }
  return (id, all) => {
    [model, drafts] = [id, all];
    sides.forEach(({ choice, text }, i) => {
      text.replaceChildren();
      choice.replaceChildren(...drafts.map(({ label }, value) => new Option(label, value)));
      choice.value = i;
    });
    dialog.showModal();
    draw();
  };
}

/** Versions of a document as drafts, the current first and then the newest: where a branch ends, and where more than some
 * words were replaced. `onUse(id)` goes to one. */
export function draftsIn(tree, onUse) {
  const isReplaced = ({ keep, tail, rest }, child) => keep + tail.length + rest - child.keep - child.rest >= REPLACED;
  const isEnd = (version) => {
    const { keep, tail, rest, children } = version;
    return keep + tail.length + rest && (!children.length || children.some((child) => isReplaced(version, tree.versions[child])));
  };
  const others = tree.versions.filter((version) => version !== tree.now && isEnd(version)).slice(-VERSIONS).reverse();
  const labels = new Map([[tree.text(), { label: "The text", id: tree.current }]]);
  for (const { id, tail } of others) {
    const text = tree.text(id);
    const own = (tail.trim() || text).replace(/\s+/g, " ").slice(0, SHOWN);
    if (!labels.has(text)) labels.set(text, { label: `Version ${id}: ${own}`, id });
  }
  return [...labels].map(([text, { label, id }]) => ({ label, text: () => text, use: () => onUse(id) }));
}

/** The stretches of each of two texts, as [start, end], with words that the other has not. */
export function differences(one, other) {
  const texts = [one, other];
  const words = texts.map((text) => text.match(/^\s+|\S+\s*/g) ?? []);
  const [a, b] = words;
  let first = 0;
  while (first < a.length && first < b.length && a[first] === b[first]) first++;
  let last = 0;
  while (last < Math.min(a.length, b.length) - first && a.at(-1 - last) === b.at(-1 - last)) last++;
  const kept = words.map((each) => each.map((_, i) => i < first || i >= each.length - last));
  const [rows, columns] = words.map(({ length }) => length - first - last);
  if (rows * columns <= MOST) {
    const width = columns + 1; // lengths of the longest common sequences of what follows
    const common = new Uint16Array((rows + 1) * width);
    for (let i = rows - 1; i >= 0; i--) {
      for (let j = columns - 1; j >= 0; j--) {
        const at = i * width + j;
        common[at] = a[first + i] === b[first + j] ? common[at + width + 1] + 1 : Math.max(common[at + width], common[at + 1]);
      }
    }
    for (let i = 0, j = 0; i < rows && j < columns; ) {
      const at = i * width + j;
      if (a[first + i] === b[first + j]) [kept[0][first + i++], kept[1][first + j++]] = [true, true];
      else if (common[at + width] >= common[at + 1]) i++;
      else j++;
    }
  }
  return words.map((each, side) => {
    const ranges = [];
    let end = 0;
    each.forEach((word, i) => {
      const start = end;
      end += word.length;
      if (kept[side][i]) return;
      if (ranges.at(-1)?.[1] === start) ranges.at(-1)[1] = end;
      else ranges.push([start, end]);
    });
    return ranges;
  });
}

/** The bits per character of what is in some stretches. */
function mean(tokens, ranges) {
  const own = tokens.filter(({ start, end, bits }) => bits !== null && ranges.some(([from, to]) => start < to && end > from));
  const characters = own.reduce((sum, { start, end }) => sum + end - start, 0);
  return characters ? (own.reduce((sum, { bits }) => sum + bits, 0) / characters).toFixed(2) : "–";
}

/** Show a text: an element for each stretch of one colour, <mark> where it differs. */
function fill(into, text, tokens, marked) {
  const starts = [...new Set([0, ...tokens.map(({ start }) => start), ...marked.flat()])].sort((one, other) => one - other);
  let [token, mark] = [0, 0];
  into.replaceChildren(
    ...starts.map((start, i) => {
      while (tokens[token + 1]?.start <= start) token++;
      while (marked[mark]?.[1] <= start) mark++;
      const piece = document.createElement(marked[mark]?.[0] <= start ? "mark" : "span");
      const level = STEPS.findLastIndex((step) => (tokens[token]?.bits ?? 0) >= step) + 1;
      if (level) piece.className = `s${level}`;
      piece.textContent = text.slice(start, starts[i + 1]);
      return piece;
    }),
  );
}
