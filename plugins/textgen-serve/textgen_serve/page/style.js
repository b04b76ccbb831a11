// The style of a text in two numbers, beside those of the author, as `textgen init --json` counts them.

const SENTENCE = /[.!?…]+["'”’»)]*\s+|\n\s*\n/;
const SPEECH = /“[^”\n]*”|"[^"\n]*"|«[^»\n]*»|„[^“\n]*“/g;
const FEWEST = 3; // sentences

/** {sentence_words, speech}: the mean number of words of a sentence, and the share of characters in quotation marks; null
 * for a short text. */
export function styleOf(text) {
  const words = text.split(SENTENCE).map((sentence) => sentence.match(/[\p{L}\p{N}_]+/gu)?.length ?? 0).filter(Boolean);
  if (words.length < FEWEST) return null;
  const spoken = (text.match(SPEECH) ?? []).reduce((sum, { length }) => sum + length, 0);
  return { sentence_words: words.reduce((sum, count) => sum + count) / words.length, speech: spoken / text.length };
}

/** Show the style of a text beside the author's. */
export function drawStyle(into, text, author) {
  const own = author?.sentence_words === undefined ? null : styleOf(text);
  into.hidden = !own;
  if (!own) return;
  const words = (style) => style.sentence_words.toFixed(1);
  const speech = (style) => `${Math.round(style.speech * 100)}%`;
  const line = (what, of) => Object.assign(document.createElement("p"), { className: "key", textContent: `${what}: ${of(own)} here, ${of(author)} by the author` });
  into.querySelector("div").replaceChildren(line("words of a sentence", words), line("speech", speech));
}
