// The style of a text beside the author's: two numbers, as `textgen init --json` counts them, and favourite words.

import { WORD } from "./phrases.js";

const SENTENCE = /[.!?…]+["'”’»)]*\s+|\n\s*\n/;
const SPEECH = /“[^“”\n]*”|"[^"\n]*"|«[^«»\n]*»|„[^„“\n]*“/g;
const FEWEST = 3; // sentences
const OFTEN = 3; // times, or as many to be expected
const FAVOURITES = 6;
const COMMON = 1 / 150; // of all words: "it" and "a" are nobody's favourites

/** {sentence_words, speech}: the mean number of words of a sentence, and the share of characters in quotation marks; null
 * for a short text. */
export function styleOf(text) {
  const words = text.split(SENTENCE).map((sentence) => sentence.match(/[\p{L}\p{N}_]+/gu)?.length ?? 0).filter(Boolean);
  if (words.length < FEWEST) return null;
  const spoken = (text.match(SPEECH) ?? []).reduce((sum, { length }) => sum + length, 0);
  return { sentence_words: words.reduce((sum, count) => sum + count) / words.length, speech: spoken / text.length };
}

/** The words that are more than twice as frequent in a text as in the training text, with their numbers, and those of which
 * the opposite is true: those first that tell the two apart most clearly. */
export function favourites(text, { total, words: others }) {
  const counts = new Map();
  for (const [word] of text.toLowerCase().matchAll(WORD)) counts.set(word, (counts.get(word) ?? 0) + 1);
  const size = [...counts.values()].reduce((sum, count) => sum + count, 0);
  const clearest = (found) => found.filter(([word, seen, expected]) => seen >= OFTEN && seen > 2 * expected && (others[word] ?? 0) <= COMMON * total)
    .sort(([, seen, expected], [, other, others]) => other * Math.log(other / others) - seen * Math.log(seen / expected))
    .slice(0, FAVOURITES);
  const here = [...counts].map(([word, count]) => [word, count, (((others[word] ?? 0) + 0.5) / total) * size]);
  const there = Object.entries(others).map(([word, count]) => [word, (count / total) * size, (counts.get(word) ?? 0) + 0.5]);
  return { here: clearest(here).map(([word, count]) => `${word} (${count})`), there: clearest(there).map(([word]) => word) };
}

/** Show the style of a text beside the author's, of whom {sentence_words, speech} and the words of the training text may be
 * known. */
export function drawStyle(into, text, author, words) {
  const lines = [];
  const own = author?.sentence_words === undefined ? null : styleOf(text);
  if (own) {
    const both = (of) => `${of(own)} here, ${of(author)} by the author`;
    lines.push(`words of a sentence: ${both(({ sentence_words: count }) => count.toFixed(1))}`);
    lines.push(`speech: ${both(({ speech }) => `${Math.round(speech * 100)}%`)}`);
  }
  if (words?.total) {
    const { here, there } = favourites(text, words);
    if (here.length) lines.push(`more often here: ${here.join(", ")}`);
    if (there.length) lines.push(`more often by the author: ${there.join(", ")}`);
  }
  into.hidden = !lines.length;
  const shown = lines.map((textContent) => Object.assign(document.createElement("p"), { className: "key", textContent }));
  into.querySelector("div").replaceChildren(...shown);
}
