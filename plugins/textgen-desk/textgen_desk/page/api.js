// The server's API. Every request names the model; an error has the server's own message.

const KEY = "textgen-key";
const KEPT_ALIVE = 15_000; // characters of what a browser sends for a page that is gone

/** Keep the API key that the server's link has in its fragment, and take it out of the address. */
export function takeKey() {
  const fragment = new URLSearchParams(location.hash.slice(1));
  if (!fragment.has("key")) return;
  useKey(fragment.get("key"));
  fragment.delete("key");
  history.replaceState(null, "", fragment.size ? `#${fragment}` : location.pathname);
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;
export const useKey = (key) => sessionStorage.setItem(KEY, key);

/** What the server says of its models. */
export async function models() {
  return (await (await request("v1/models")).json()).data;
}

/** What it says of one, with its losses and the options of samplers. */
export async function card(id) {
  return (await request(`v1/models/${encodeURIComponent(id)}`)).json();
}

/** Characters that the vocabulary lacks are read as its unknown token, where they would be refused. */
export const UNKNOWN = { unknown_characters: "unknown" };
const REPLACED = "\ufffd"; // the text of that token, and of a part of a character

/** The tokens of a text: where each begins and ends in it, its surprise in bits and its rank, null where there is none,
 * and whether it is unknown; and the fingerprint of the model. */
export async function score(model, text, signal) {
  const body = { model, prompt: text, echo: true, max_tokens: 0, logprobs: 0, prompt_logprobs: 0, ...UNKNOWN };
  const { choices, system_fingerprint: fingerprint } = await (await request("v1/completions", body, signal)).json();
  const { tokens, token_logprobs: logprobs, text_offset: offsets } = choices[0].logprobs;
  const places = utf16(text, [...offsets, Infinity]);
  const scored = logprobs.map((logprob, i) => {
    const [start, end] = [places[i], places[i + 1]];
    const isUnknown = tokens[i] === REPLACED && start < end && text[start] !== REPLACED && places[i - 1] !== start;
    const isScored = logprob !== null && !isUnknown;
    const rank = isScored ? Object.values(choices[0].prompt_logprobs?.[i] ?? {})[0]?.rank ?? null : null;
    return { start, end, bits: isScored ? -logprob / Math.LN2 : null, rank, isUnknown };
  });
  return { tokens: scored, fingerprint };
}

const READ = 2000; // characters at the end of a text on which its likeliest tokens are based
const PAGES = 10_000; // characters
export const BOOK = 30_000; // characters, more than which are not scored at once: an answer has 100,000 values at most

/** A place of a text, or the one before it in the middle of a character. */
export const whole = (text, place) => (/[\udc00-\udfff]/.test(text[place] ?? "") ? place - 1 : place);

/** The end of a text that a model reads before it writes on. It begins where it did for what was written before, which the
 * server then knows. */
export const recent = (text) => text.slice(whole(text, Math.max(0, Math.floor(text.length / PAGES) - 2) * PAGES));

/** The likeliest next tokens, before and after the samplers, and the text that options with `max_tokens` made before. */
export async function likeliest(model, prompt, options) {
  return (await request("next_tokens", { model, prompt: prompt.slice(whole(prompt, Math.max(0, prompt.length - READ))), ...options, ...UNKNOWN, logprobs: 10 })).json();
}

const WORD = 8; // tokens that complete a word at most

/** Tokens with the word that each begins, as the model would write it; of several that begin one, the first has it. */
export async function asWords(model, prompt, tokens) {
  const end = prompt.slice(whole(prompt, Math.max(0, prompt.length - READ)));
  const begun = tokens.filter(({ text }) => /^\s*\p{L}*$/u.test(text) && text && !text.includes("\n"));
  if (!begun.length) return tokens;
  const choices = await complete(model, begun.map(({ text }) => end + text), { temperature: 0, max_tokens: WORD });
  const words = new Map(begun.map(({ text }, i) => [text, text + choices[i].text.match(/^[\p{L}’'-]*/u)[0].replace(/[’'-]+$/, "")]));
  const all = tokens.map(({ text }) => words.get(text) ?? text);
  return tokens.map((token, i) => ({ ...token, word: all.indexOf(all[i]) === i ? all[i] : token.text }));
}

/** Where a text has what the training text has, too, as [start, end], and the share of such 8-grams. */
export async function copies(model, text) {
  const found = await (await request("copies", { model, prompt: text })).json();
  return { passages: stretches(text, found.passages), share: found.copied_8_grams };
}

/** Where a text has phrases that a model which has read more finds too likely, and its name. */
export async function worn(model, text) {
  const found = await (await request("worn", { model, prompt: text })).json();
  return { ...found, passages: stretches(text, found.passages) };
}

/** How often which word is in the training text: {total, words}. */
export const wordsOf = async (model) => (await request("words", { model })).json();

function stretches(text, passages) {
  const places = utf16(text, passages.flatMap(({ start, end }) => [start, end]));
  return passages.map((_, i) => places.slice(2 * i, 2 * i + 2));
}

/** Whole texts, as many as `n` says for each prompt: {text, finish_reason}. */
export async function complete(model, prompt, options) {
  const answer = await request("v1/completions", { model, prompt, ...options, ...UNKNOWN });
  return (await answer.json()).choices;
}

/** Texts as they come: `onPiece(index, text)`. */
export async function stream(model, prompt, options, signal, onPiece) {
  const answer = await request("v1/completions", { model, prompt, ...options, ...UNKNOWN, stream: true }, signal);
  for await (const data of events(answer.body)) {
    if (data === "[DONE]") break;
    const { choices = [], error } = JSON.parse(data);
    if (error) throw new Error(error.message);
    for (const { index, text } of choices) if (text) onPiece(index, text);
  }
}

/** A function that runs `work` with its newest arguments: never twice at once, and the last call is never lost. */
export function latest(work) {
  let next, running = false;
  return async (...given) => {
    next = given;
    if (running) return;
    running = true;
    try {
      while (next) {
        const now = next;
        next = undefined;
        await work(...now);
      }
    } finally {
      running = false;
    }
  };
}

/** What the desk has: all runs, or one with its losses and samples. */
export const onDesk = async (name) => (await request(name === undefined ? "desk/runs" : run(name))).json();
/** A place for texts; gives its name. */
export const newRun = async (name) => (await (await request("desk/runs", { name })).json()).name;
export const addText = (name, file, content) => request(`${run(name)}/text/${encodeURIComponent(file)}`, content);
/** Take a run out of the bin, or a document of one. */
export const restore = (name, run) => request(`desk/bin/${encodeURIComponent(name)}`, { run });
export const act = (name, action, given = {}) => request(`${run(name)}/${action}`, given);

/** The documents of a run: titles and times. */
export const documents = async (name) => (await (await request(`${run(name)}/documents`)).json()).documents;
/** A document as {tree, text, etag}; `text` is what another program has made of it. */
export async function readDocument(name, title) {
  const answer = await request(document_(name, title));
  return { ...(await answer.json()), etag: answer.headers.get("ETag") };
}
/** Write a document that is as it was read, or a new one without an ETag; gives the new one. */
export async function keepDocument(name, title, content, etag) {
  const headers = etag === null ? {} : { "If-Match": etag };
  return (await (await request(document_(name, title), content, undefined, "PUT", headers)).json()).etag;
}
export const moveDocument = (name, title, action, given = {}) => request(`${document_(name, title)}/${action}`, given);
const document_ = (name, title) => `${run(name)}/documents/${encodeURIComponent(title)}`;
/** The text of a file, whatever its format. */
export const textIn = async (file) => (await (await request(`text/${encodeURIComponent(file.name)}`, file)).json()).text;
/** A text as a Word document. */
export const docx = async (text) => (await request("docx", { text })).blob();

const run = (name) => `desk/runs/${encodeURIComponent(name)}`;

/** A Blob is put, and anything else posted as JSON. */
async function request(path, body, signal, method = body instanceof Blob ? "PUT" : "POST", more = {}) {
  const isBlob = body instanceof Blob;
  const headers = { "Content-Type": isBlob ? "application/octet-stream" : "application/json", ...more };
  if (hasKey()) headers.Authorization = `Bearer ${sessionStorage.getItem(KEY)}`;
  const sent = body ? { method, body: isBlob ? body : JSON.stringify(body) } : {};
  if (sent.body?.length < KEPT_ALIVE) sent.keepalive = method === "PUT"; // it is sent even if the page goes away
  const answer = await fetch(path, { ...sent, headers, signal }).catch(unreachable);
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({}));
  throw Object.assign(new Error(error?.message ?? `${answer.status} ${answer.statusText}`), { status: answer.status });
}

async function* events(body) {
  let rest = "";
  for await (const piece of pieces(body.pipeThrough(new TextDecoderStream()))) {
    const whole = (rest + piece).split("\n\n");
    rest = whole.pop();
    for (const event of whole) if (event.startsWith("data: ")) yield event.slice(6);
  }
}

async function* pieces(readable) {
  const reader = readable.getReader();
  try {
    for (let next; !(next = await reader.read().catch(unreachable)).done;) yield next.value;
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Browsers say that a connection failed with a TypeError, each in words of its own. */
function unreachable(error) {
  throw error instanceof TypeError ? new Error("The server does not answer. Is it running?") : error;
}

/** Places counted in code points, as places in a JavaScript string. */
function utf16(text, places) {
  const starts = [];
  for (let place = 0; place < text.length; place += text.codePointAt(place) > 0xffff ? 2 : 1) starts.push(place);
  return places.map((place) => starts[place] ?? text.length);
}
