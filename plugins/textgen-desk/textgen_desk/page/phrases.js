// Phrases that are marked in the text: copied from the training corpus, said before in the text, or worn.

import { copies, latest, worn } from "./api.js";

export const WORD = /\p{L}+(?:['’-]\p{L}+)*/gu;
const WORDS = 4; // of a phrase that is said again
const LONG = 18; // characters of it at least: shorter ones are "it was in the"
const LISTED = 12;

/** The stretches of a text, as [start, end], whose words in a row are there once more. */
export function repeated(text) {
  const words = [...text.matchAll(WORD)].map(({ 0: word, index }) => ({ word: word.toLowerCase(), start: index, end: index + word.length }));
  const breaks = (i) => /[.!?…\n]/.test(text.slice(words[i - 1].end, words[i].start)); // before a word
  const seen = new Map(); // the first place of some words in a row
  const isAgain = new Array(words.length).fill(false);
  for (let i = 0, row = 1; i < words.length; i++, row++) {
    if (i && breaks(i)) row = 1;
    if (row < WORDS) continue;
    const first = i - WORDS + 1;
    const phrase = words.slice(first, i + 1).map(({ word }) => word).join(" ");
    if (!seen.has(phrase)) seen.set(phrase, first);
    else for (const each of [seen.get(phrase), first]) isAgain.fill(true, each, each + WORDS);
  }
  const ranges = [];
  words.forEach(({ start, end }, i) => {
    if (!isAgain[i]) return;
    if (isAgain[i - 1] && !breaks(i)) ranges.at(-1)[1] = end;
    else ranges.push([start, end]);
  });
  return ranges.filter(([start, end]) => end - start >= LONG);
}

/** Marks what is ticked; `update()` after a change of the text. */
export function phrases(editor, modelId) {
  const kinds = {
    async copied(text) {
      const { passages, share } = await copies(modelId(), text);
      return [passages, `${counted(passages, "passage")} of 16 word pieces or more; of eights, the book has ${Math.round((share ?? 0) * 100)}%`];
    },
    repeated: (text) => [repeated(text), "words in a row that come again", true],
    async worn(text) {
      const { passages, model } = await worn(modelId(), text);
      return [passages, `likely to ${model}, which has read more`, true];
    },
  };
  const updates = Object.entries(kinds).map(([name, find]) => {
    const box = document.getElementById(name).querySelector("input");
    const [facts, list] = ["p", "ul"].map((tag) => document.getElementById(name).querySelector(tag));
    const update = latest(async () => {
      const { text } = editor;
      facts.hidden = list.hidden = !box.checked;
      if (!box.checked || !text) {
        facts.textContent = "";
        list.replaceChildren();
        return editor.mark(name, []);
      }
      facts.textContent ||= "…";
      try {
        const [ranges, said, isListed] = await find(text);
        if (editor.text === text) editor.mark(name, ranges);
        facts.textContent = isListed ? `${counted(ranges, "phrase")}: ${said}` : said;
        list.replaceChildren(...(isListed ? named(text, ranges) : []));
      } catch (error) {
        facts.textContent = error.message;
        list.replaceChildren();
        editor.mark(name, []);
      }
    });
    box.addEventListener("change", () => update());
    return update;
  });
  return () => updates.forEach((update) => update());
}

const counted = ({ length }, name) => `${length} ${name}${length === 1 ? "" : "s"}`;

/** Different phrases, the most frequent first. */
function named(text, ranges) {
  const counts = new Map();
  for (const [start, end] of ranges) {
    const phrase = text.slice(start, end).replace(/\s+/g, " ").toLowerCase();
    counts.set(phrase, (counts.get(phrase) ?? 0) + 1);
  }
  const most = [...counts].sort(([, one], [, other]) => other - one).slice(0, LISTED);
  return most.map(([phrase, count]) => Object.assign(document.createElement("li"), { textContent: count > 1 ? `${phrase} (${count})` : phrase }));
}
