// The page: what happens when something is typed, clicked, dragged or pressed.

import { alternatives } from "./alternatives.js";
import { asWords, BOOK, card, complete, hasKey, latest, likeliest, models, onDesk, recent, score, stream, takeKey, textIn, UNKNOWN, useKey, whole, wordsOf } from "./api.js";
import { drawLosses, drawRanks } from "./charts.js";
import { comparison, draftsIn } from "./drafts.js";
import { exportAs, Shelf, treeIn } from "./documents.js";
import { Editor, STEPS } from "./editor.js";
import { phrases } from "./phrases.js";
import { Samplers } from "./samplers.js";
import { ending, part, sentences } from "./sentences.js";
import { curl, fromLink, link, python } from "./share.js";
import { drawStyle } from "./style.js";
import { drawTokens, withArrows } from "./tokens.js";
import { drawTree, Tree } from "./tree.js";

const ENOUGH = 500; // characters of a text whose words are compared
const FORMATTED = /\.(docx|odt|rtf|epub|x?html?)$/i; // files of which the text alone is taken
const SHOWN = 300; // characters of a link's prompt
const REST = 200; // characters that follow a sentence which is written anew
const OTHERS = { n: 5, candidates: 6, stop: [".", "!", "?", "…", "\n"] }; // of such sentences
const BEGINS = /(^|[.!?…]["'”’)\]]*|\n)\s*$/; // a sentence comes next
const INSIDE = 16; // tokens that are put into a sentence at most
const FIELDS = ["unit", "max_tokens", "n", "likely", "avoid"];
const MOST = { tokens: 1, sentences: 120, paragraphs: 600 }; // tokens of each
const [BEFORE, AFTER, LONG, PAGES, PAUSE] = [300, 100, 1000, 5000, 400]; // characters and milliseconds: see scoreText

const $ = (id) => document.getElementById(id);
const numbers = ["max_tokens", "n", "seed"];

const hasDesk = location.pathname.endsWith("/write"); // where runs are trained, at the address above
let model; // as the server describes it
let tree = new Tree();
const shelf = hasDesk ? new Shelf(takeIn, sayKept) : null; // else the browser keeps a document for each run
let author = null; // what `textgen init` found of the text that the model was trained on
const known = {}; // by model: how often which word is in its training text
let running = null; // the AbortController of the stream that comes in
let tuned = null; // the version that is made anew while a slider moves

const editor = new Editor($("text"), {
  onEdit(text) {
    abort();
    tree.edit(text);
    show();
  },
  onCaret: () => running || (scoring && !all) || (editor.text.length > BOOK ? scoreText(false) : showNext()),
});
const popover = alternatives(editor, { likeliestAt, asWords: (at, tokens) => asWords(model.id, editor.text.slice(0, at), tokens), onTake: take, isBusy: () => running });
const samplers = new Samplers($("sliders"), $("more"), tune);
const markPhrases = phrases(editor, () => model.id);
const showDrafts = comparison();
const others = sentences(() => editor.element.focus());

// --- The model ---------------------------------------------------------------------------------

async function start() {
  takeKey();
  try {
    const ids = (await models()).map(({ id }) => id);
    const linked = fromLink();
    const wanted = linked?.model ?? new URLSearchParams(location.hash.slice(1)).get("model");
    if (!ids.length) throw new Error("There is no model yet: train one at the desk.");
    $("model").replaceChildren(...ids.map((id) => new Option(id)));
    await open(ids.includes(wanted) ? wanted : ids[0]);
    document.body.dataset.ready = "";
    if (linked) offer(linked);
  } catch (error) {
    if (error.status !== 401) return say(error.message, true);
    $("refused").textContent = hasKey() ? error.message : "";
    $("asking").showModal();
  }
}

/** Ask whether to make the text of a link, which any page can open here. */
function offer(linked) {
  history.replaceState(null, "", location.pathname);
  if (linked.model !== model.id) return say(`The link is for ${linked.model}, which is not served here`, true);
  const { prompt, n = 1, max_tokens = 0 } = linked;
  $("linked-facts").textContent = `${n} × ${max_tokens} word pieces by ${model.id}, after ${prompt ? `“${prompt.slice(-SHOWN)}”` : "nothing"}`;
  ask("linked", () => follow(linked));
}

/** Make the text of a link, beside what the document has. */
function follow(linked) {
  move(() => {
    tree.go(0);
    if (linked.prompt) tree.put(linked.prompt);
  });
  use(linked);
  generate(tree.current, linked.index);
}

async function open(id) {
  abort();
  await settle();
  await meet(id);
  const { textgen: facts } = model;
  $("model").value = id;
  document.title = `${id} – textgen`;
  samplers.use(facts.sampling_options);
  $("max_tokens").value = facts.generate.max_new_tokens ?? 200;
  $("seed").value = facts.seed;
  say("");
  if (shelf) author = (await onDesk(id)).found;
  if (shelf) lay(await shelf.open(id, new URLSearchParams(location.hash.slice(1)).get("document")));
  else plant(load());
  for (const [name, value] of Object.entries(JSON.parse(localStorage.getItem(`textgen fields ${id}`) ?? "{}"))) $(name).value = value;
  editor.element.inert = false;
  editor.moveTo(editor.text.length);
}

/** Keep what was typed into the fields in this browser. */
function keepFields() {
  localStorage.setItem(`textgen fields ${model.id}`, JSON.stringify(Object.fromEntries(FIELDS.map((name) => [name, $(name).value]))));
}

/** Show a document of the shelf. */
function lay({ tree: saved, text }) {
  say("");
  sayElsewhere("");
  plant(saved && Tree.checked(saved));
  if (text !== null) tree.put(text);
  if (text !== null) show();
  list();
}

/** List the documents, and have the address name the open one. */
function list() {
  const { run, title, titles } = shelf;
  const all = titles.includes(title) ? titles : [title, ...titles];
  $("document").replaceChildren(...all.map((each) => new Option(each)));
  $("document").value = title;
  document.title = `${title} – ${run} – textgen`;
  history.replaceState(null, "", `#${new URLSearchParams({ model: run, document: title })}`);
}

/** Keep what is not yet kept. */
async function settle() {
  if (saving || shelf?.changed) save();
  await shelf?.keeping;
  if (shelf?.changed) throw new Error("What is here is not kept yet");
}

/** Show the facts of a model. */
async function meet(id) {
  model = await card(id);
  $("facts").textContent = describe(model.textgen);
  $("losses").hidden = !drawLosses($("losses"), model.textgen.metrics);
}

/** Show a tree that was saved, or a new one. */
function plant(saved) {
  move(() => (tree = new Tree(saved)));
}

function describe({ model: type, parameters, vocab_size: size, best_loss: loss }) {
  const parts = [type];
  if (parameters) parts.push(`${parameters.toLocaleString("en")} parameters`);
  if (size) parts.push(`${size.toLocaleString("en")} tokens`);
  if (loss) parts.push(`${(loss / Math.LN2).toFixed(2)} bits per token`);
  return parts.join(" · ");
}

// --- What is shown -----------------------------------------------------------------------------

/** Show the current version, and ask the model what it thinks of it. */
function show() {
  draw();
  const { siblings, now } = tree;
  $("siblings").hidden = siblings.length < 2;
  $("sibling").textContent = `${siblings.indexOf(now.id) + 1} of ${siblings.length}`;
  $("undo").disabled = now.parent === null;
  $("redo").disabled = now.seen === null;
  $("retry").disabled = !now.made;
  drawTree($("tree"), tree, go);
  $("branches").hidden = !$("tree").children.length;
  popover.close();
  saveSoon();
  rescore();
  if (!running) markPhrases();
}

/** Show the text alone, which may be growing. */
function draw() {
  const text = tree.text();
  if (text !== editor.text) {
    if (editor.text && text.startsWith(editor.text)) editor.append(text.slice(editor.text.length));
    else {
      editor.set(text);
      if (tree.now.made && editor.hasFocus) editor.moveTo(text.length);
    }
  }
  editor.mark("made", tree.made.map(({ start, end }) => [start, end]));
}

/** Show and keep a text that comes in. It is scored for a quarter of the time at most, since that slows it down. */
const drawSoon = oncePerFrame(() => {
  draw();
  saveSoon();
  if (performance.now() > due) rescore();
});

let due = 0;
let scoring = false;
let pause; // the timer until a long text is scored as a whole
let all; // the AbortController while it is
let noted = false; // whether the status is about the scores

function rescore() {
  clearTimeout(pause);
  all?.abort();
  scoreText(false);
}

/** Score the text: of a long one what surrounds the last edit, after characters that the model reads before it. After a
 * pause all of it is scored; of one as long as a book, some pages around the caret. */
const scoreText = latest(async (isPaused) => {
  const { text, tokens: before } = editor;
  const isBook = text.length > BOOK;
  const first = isBook ? Math.max(0, Math.floor(editor.caret / PAGES - 1)) * PAGES : 0;
  const last = isBook ? Math.min(first + 3 * PAGES, text.length) : text.length;
  const [start, end] = editor.unscored(first, last);
  if (isBook && start === end) return showNext();
  const from = editor.tokenAt(Math.max(0, start - BEFORE))?.start ?? whole(text, Math.max(0, start - BEFORE));
  const to = Math.min(editor.tokenAt(end + AFTER)?.start ?? text.length, whole(text, last));
  const isPart = isBook || (!isPaused && to - from + LONG < text.length);
  const began = performance.now();
  scoring = true;
  try {
    if (isPaused) all = new AbortController();
    const asked = isPart ? text.slice(from, to) : text;
    const { tokens, fingerprint } = asked ? await score(model.id, asked, all?.signal) : { tokens: [], fingerprint: "" };
    if (isPart) {
      const part = tokens.map((token) => ({ ...token, start: token.start + from, end: token.end + from }));
      const kept = before.filter((token) => first <= token.start && token.end <= start);
      const rest = before.filter((token) => to <= token.start && token.start < last);
      editor.colour([...kept, ...part.filter((token) => token.start >= start), ...rest], text);
      clearTimeout(pause);
      if (!isBook) pause = setTimeout(scoreText, PAUSE, true);
    } else editor.colour(tokens, text);
    const { made } = tree;
    drawRanks($("ranks"), editor.tokens, ({ start }) => made.some((part) => part.start <= start && start < part.end));
    const unknown = editor.tokens.filter(({ isUnknown }) => isUnknown);
    editor.mark("unknown", unknown.map(({ start, end }) => [start, end]));
    if (unknown.length) say(`New to the model, which reads a gap there: ${[...new Set(unknown.map((token) => editor.textOf(token)))].join(" ")}`);
    else if (noted) say("");
    noted = unknown.length > 0;
    if (!model.textgen.checksum.startsWith(fingerprint)) await meet(model.id); // it was trained again
  } catch (error) {
    if (error.name === "AbortError") return;
    say(error.message, true);
    noted = true;
  } finally {
    all = null;
    scoring = false;
  }
  due = performance.now() + 3 * (performance.now() - began);
  if (!running && !isPaused && text === editor.text) showNext(); // else the next score comes first
});

/** The likeliest tokens at the caret. */
const showNext = latest(async () => {
  const place = editor.caret;
  try {
    const { tokens } = await likeliest(model.id, editor.text.slice(0, place), sampling());
    const end = Math.max(place, editor.wordAt(place)[1]);
    drawTokens($("likeliest"), tokens, editor.textOf(editor.tokenAt(place)), (token) => take(place, end, token));
  } catch {
    $("likeliest").replaceChildren(); // scoreText says why, where the server does not answer
  }
});

/** The likeliest tokens at a place. Where the model wrote, they follow its text, on which its samplers depend. */
async function likeliestAt(place) {
  const part = tree.made.find(({ start, end }) => start <= place && place < end);
  if (part) {
    const { start, made } = part;
    const max_tokens = editor.tokens.filter((token) => start <= token.start && token.start < place).length;
    const { ban_phrase: _, ...options } = made; // with which no text is asked for a token
    const found = await likeliest(model.id, editor.text.slice(0, start), { ...options, max_tokens });
    if (found.text === editor.text.slice(start, place)) return found.tokens;
  }
  return (await likeliest(model.id, editor.text.slice(0, place), sampling())).tokens;
}

function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

// --- Generation --------------------------------------------------------------------------------

/** Continue a version, in as many texts as are asked for. */
async function generate(parent, first = 0) {
  abort();
  tuned = null;
  const controller = (running = new AbortController());
  const options = chosen();
  const n = number("n");
  const versions = Array.from({ length: n }, (_, i) => tree.branch(parent, { ...options, index: first + i }));
  const pieces = versions.map(() => "");
  const began = performance.now();
  tree.go(versions[0].id);
  show();
  if (matchMedia("(pointer: fine)").matches) editor.moveTo(editor.text.length); // no keyboard comes up on a phone
  editor.showEnd();
  $("continue").textContent = "Stop";
  const report = () => {
    const made = versions.reduce((sum, { tail }) => sum + tail.length, 0);
    say(`${made.toLocaleString("en")} characters in ${((performance.now() - began) / 1000).toFixed(2)} s`);
  };
  try {
    const prompt = recent(tree.text(parent));
    await stream(model.id, prompt, { ...options, n, index: first }, controller.signal, (index, piece) => {
      pieces[index] += piece;
      versions[index].tail = cut(pieces[index]);
      drawSoon();
      if (pieces.every((text, i) => versions[i].tail.length < text.length)) controller.abort();
    });
    report();
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, true);
    else if (running === controller) report(); // all have come to the length that was asked for
    else say("Stopped");
    if (tree.drop(versions)) show();
  }
  if (running === controller) stop();
}

function abort() {
  running?.abort();
  running = null;
  $("continue").textContent = "Continue";
}

function stop() {
  if (!running) return;
  abort();
  show();
}

/** The options as they are set. */
function chosen() {
  const banned = listed("avoid");
  const max_tokens = Math.min(number("max_tokens") * MOST[$("unit").value], $("max_tokens").max);
  return { max_tokens, seed: number("seed"), ...sampling(), ...(banned.length ? { ban_phrase: banned } : {}) };
}

/** The options of samplers as they are set. */
function sampling() {
  const names = listed("likely");
  return { ...samplers.options, ...(names.length ? { likely_names: names } : {}) };
}

const listed = (id) => $(id).value.split(",").map((each) => each.trim()).filter(Boolean);

/** A text up to the length that is asked for. */
const cut = (text) => text.slice(0, ending(text, number("max_tokens"), $("unit").value));

function retry() {
  const { made, parent } = tree.now;
  if (!made) return;
  $("seed").value = Math.max(...tree.siblings.map((id) => tree.versions[id].made.seed)) + 1;
  generate(parent);
}

/** Put a token, or the word that it begins, in the place of what is there; what follows is kept, or written anew. */
async function take(start, end, token) {
  abort();
  const { text } = editor;
  const before = text.slice(0, start);
  const { word = token.text } = token.word ? token : (await asWords(model.id, before, [token]).catch(() => [token]))[0];
  if (editor.text !== text) return;
  const part = tree.made.find((each) => each.start <= start && start < each.end);
  const [old, rest] = [text.slice(start, end), text.slice(end)];
  const gap = /^\s+$/.test(old) && !/\s$/.test(word) ? old : /\p{L}$/u.test(word) && /^\p{L}/u.test(rest) ? " " : "";
  move(() => tree.put(before + word + ($("goes-on").checked ? "" : gap + rest)));
  editor.moveTo(start + word.length);
  if (!$("goes-on").checked) return;
  if (part) use(part.made);
  generate(tree.current);
}

/** Offer other sentences for what is selected or for the sentence at the caret; `isNew` ones to put in at the caret. */
const rewrite = latest(async (isNew) => {
  abort();
  const { text } = editor;
  const [start, end] = isNew ? [editor.caret, editor.caret] : part(text, editor.selected);
  const [before, rest] = [text.slice(0, start), text.slice(end, end + REST)];
  const isSentence = isNew && BEGINS.test(before);
  const close = isSentence ? (/^\S/.test(rest) ? ". " : ".") : isNew && /^\S/.test(rest) ? " " : "";
  const { ban_phrase: banned = [], ...options } = chosen(); // a text has one strategy, and here it is to fill
  const max_tokens = isNew ? (isSentence ? MOST.sentences : INSIDE) : 40 + (end - start);
  const given = { ...options, ...OTHERS, max_tokens, ...(rest.trim() ? { suffix: close + rest } : { candidates: undefined }) };
  say("Writing sentences…");
  try {
    const made = await complete(model.id, recent(before), given);
    say("");
    if (editor.text !== text) return;
    const ended = made.filter(({ finish_reason: reason }) => reason === "stop");
    const shown = [...new Set((ended.length ? ended : made).map((each) => each.text.trim()))].filter(
      (each) => each && each !== text.slice(start, end) && !banned.some((phrase) => each.includes(phrase)),
    );
    if (!shown.length) return say("The model has no other sentence for this place");
    others.show(editor.box(start, Math.max(end, start + 1)), shown, (sentence) => {
      const put = (isNew && /\S$/.test(before) ? " " : "") + sentence + close;
      move(() => tree.put(before + put + text.slice(end)));
      editor.moveTo(start + put.length);
    });
  } catch (error) {
    say(error.message, true);
  }
});

/** A slider moved: make the text anew with its seed. The text as it was stays beside it. */
function tune() {
  abort();
  const { made, parent, tail } = tree.now;
  if (made && tuned !== tree.current) {
    const version = tree.branch(parent, made);
    version.tail = tail;
    tuned = version.id;
    tree.go(tuned);
  }
  if (made) remake();
  showNext();
}

const remake = latest(async () => {
  const version = tree.versions[tuned];
  if (!version) return;
  const { seed, index } = version.made;
  const options = { ...chosen(), seed, index };
  try {
    const [made] = await complete(model.id, recent(tree.text(version.parent)), options);
    const tail = cut(made.text);
    if (tree.now !== version) return; // something was typed meanwhile, or another text chosen
    Object.assign(version, { tail, made: options });
    show();
  } catch (error) {
    say(error.message, true);
  }
});

// --- Versions ----------------------------------------------------------------------------------

function move(how) {
  abort();
  tuned = null;
  how();
  if (tree.now.made) use(tree.now.made);
  show();
}

const go = (id) => {
  sayElsewhere("");
  move(() => tree.go(id));
};

/** Show the options with which a text was made. */
function use(options) {
  samplers.set(options);
  for (const name of numbers) if (name in options && (name !== "max_tokens" || $("unit").value === "tokens")) $(name).value = options[name];
  $("avoid").value = (options.ban_phrase ?? []).join(", ");
  $("likely").value = (options.likely_names ?? []).join(", ");
}

function number(name) {
  const { min, max, value } = $(name);
  return Math.min(Math.max(Math.trunc(Number(value)) || Number(min), Number(min)), Number(max));
}

const place = () => `textgen ${model.id}`;

function load() {
  try {
    return Tree.checked(JSON.parse(localStorage.getItem(place())));
  } catch {
    return null;
  }
}

const LONGEST = 1000; // milliseconds that a change is not kept
let saving;
let since = null; // the first change that is not kept

/** Save the tree after a while without changes: a long one takes milliseconds. */
function saveSoon() {
  clearTimeout(saving);
  since ??= Date.now();
  saving = setTimeout(save, Math.max(0, Math.min(300, since + LONGEST - Date.now())));
}

function save() {
  clearTimeout(saving);
  saving = since = null;
  setTimeout(showStyle);
  if (shelf) return shelf.keep(tree);
  $("unkept").hidden = true;
  try {
    localStorage.setItem(place(), JSON.stringify(tree.saved));
  } catch {
    sayKept(new Error("The browser has no room to keep this document"));
  }
}

/** Show the style of the text beside the author's, whose words are asked for once there are some to compare. */
function showStyle() {
  const [text, { id }] = [tree.text(), model];
  if (text.length > ENOUGH && !(id in known)) {
    known[id] = null;
    wordsOf(id).then((found) => ((known[id] = found), showStyle()), () => {}); // the text is scored, which says what is wrong
  }
  drawStyle($("style"), text, author, known[id]);
}

/** Say that a document is not kept. */
function sayKept(error) {
  $("unkept").hidden = !error;
  if (error) $("unkept").textContent = `${error.message}: this document is not kept. Export it.`;
  else if (!$("document").value || $("document").value !== shelf.title || $("document").length !== shelf.titles.length) list();
}

function sayElsewhere(text) {
  $("elsewhere").hidden = !text;
  $("elsewhere").textContent = text;
}

/** Another tab or person has written a document of the shelf, or another program its text. */
function takeIn({ tree: saved, text }) {
  if (saved && Tree.checked(saved).id !== tree.id) {
    sayElsewhere("Another document has this title now: what is here is kept under another.");
    return false;
  }
  const isNew = saved && tree.merge(saved);
  if (text !== null) tree.beside(text);
  if (isNew || text !== null) {
    sayElsewhere("This document was changed in another place: Continuations has both.");
    show();
  }
  return true;
}

/** Another tab has saved a document of this model: the same one, or one that replaces it. */
function receive({ key, newValue }) {
  if (key !== place() || !newValue) return;
  const saved = Tree.checked(JSON.parse(newValue));
  if (saved.id !== tree.id) plant(saved);
  else if (tree.merge(saved)) show();
  else if (saved.versions.length < tree.versions.length) saveSoon();
}

/** Ask in a dialog, and do what its button says. */
function ask(id, action) {
  $(id).returnValue = "";
  $(id).onclose = () => $(id).returnValue && attempt(() => action($(id).returnValue));
  $(id).showModal();
}

/** Do something, and say why if it fails. */
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    say(error.message, true);
  }
}

function rename() {
  $("title").value = shelf.title;
  ask("naming", async () => {
    await shelf.rename($("title").value.trim());
    list();
  });
}

async function remove() {
  await settle();
  const { title } = shelf;
  await shelf.remove();
  lay(await shelf.read(shelf.titles[0]));
  say(`${title} is in the bin; the desk restores it`);
}

async function turnTo(title) {
  await settle();
  lay(await shelf.read(title));
  editor.moveTo(editor.text.length);
}

/** Take a file: beside what there is where documents have titles, else in its place. */
async function imported() {
  const [file] = $("file").files;
  $("file").value = "";
  const saved = file.name.endsWith(".json") ? treeIn(await file.text(), file.name) : null;
  const text = saved ? null : await textIn(file);
  if (shelf) {
    await settle();
    await shelf.read();
    shelf.title = shelf.unused(file.name.replace(/\.[^.]*$/, "").replace(/[^\p{L}\p{N} .-]+/gu, "-").slice(0, 70).replace(/^[^\p{L}\p{N}]+|[ .]+$/gu, "") || "Imported");
    lay({ tree: saved, text });
    if (FORMATTED.test(file.name)) sayElsewhere("Imported as plain text, without bold, italics and headings");
  } else if (confirm("Replace this document and all its continuations?")) {
    plant(saved);
    if (text !== null) tree.put(text);
    if (text !== null) show();
  }
}

function share() {
  const { made, parent } = tree.now;
  const prompt = recent(made ? tree.text(parent) : editor.text);
  const unknown = editor.tokens.some(({ isUnknown, start }) => isUnknown && start < prompt.length);
  const request = { model: model.id, prompt, ...(made ?? chosen()), ...(unknown ? UNKNOWN : {}) };
  $("link").value = link(request);
  $("curl").value = curl(request, hasKey());
  $("python").value = python(request, hasKey());
  $("sharing").showModal();
}

/** Show the text beside another version, or another document. */
function compare() {
  const titles = shelf?.titles.filter((title) => title !== shelf.title) ?? [];
  const others = titles.map((title) => ({ label: title, text: () => shelf.textOf(title), use: () => attempt(() => turnTo(title)) }));
  const drafts = [...draftsIn(tree, go), ...others];
  if (drafts.length < 2) return say("There is no second draft yet: Retry or Rewrite makes one");
  showDrafts(model.id, drafts);
}

withArrows($("likeliest"));

// --- Buttons and keys --------------------------------------------------------------------------

const toggle = () => (running ? stop() : generate(tree.current));
const actions = {
  continue: toggle,
  retry,
  rewrite: () => rewrite(false),
  insert: () => rewrite(true),
  undo: () => move(() => tree.undo()),
  redo: () => move(() => tree.redo()),
  previous: () => move(() => tree.turn(-1)),
  next: () => move(() => tree.turn(1)),
  compare,
  share,
  export: () => ask("exporting", (kind) => exportAs(kind, shelf?.title ?? model.id, tree, model.id)),
  rename,
  remove: () => attempt(remove),
  import: () => $("file").click(),
  help: () => $("keys").showModal(),
  async new() {
    if (shelf)
      return attempt(async () => {
        await settle();
        lay(await shelf.read());
        editor.moveTo(0);
      });
    if (!confirm("Delete this document and all its continuations?")) return;
    plant(null);
    editor.moveTo(0);
  },
};
for (const [id, action] of Object.entries(actions)) $(id).addEventListener("click", action);

const isMac = navigator.platform.startsWith("Mac");
document.addEventListener("keydown", (event) => {
  const { key, shiftKey, target } = event;
  const altKey = event.altKey && (isMac ? event.ctrlKey : !event.getModifierState("AltGraph")); // others type letters
  const command = event.ctrlKey || event.metaKey;
  const inField = target.matches("input:not([type=range], [type=checkbox]), textarea"); // which has an undo of its own
  let action;
  if (document.querySelector("dialog[open]")) return;
  if (altKey && key === "Enter") action = retry;
  else if (command && key === "Enter") action = toggle;
  else if (altKey && event.code === "KeyR") action = actions.rewrite;
  else if (altKey && event.code === "KeyI") action = actions.insert;
  else if (altKey && event.code === "KeyK") action = otherColours;
  else if (altKey && event.code === "KeyC") action = compare;
  else if (altKey && key === "ArrowUp") action = actions.previous;
  else if (altKey && key === "ArrowDown") action = actions.next;
  else if (key === "Escape") action = [popover, others].find(({ isOpen }) => isOpen())?.close ?? stop;
  else if (event.ctrlKey && key === " ") action = popover.atCaret;
  else if (command && !inField && key.toLowerCase() === "z") action = shiftKey ? actions.redo : actions.undo;
  else if (command && !inField && key.toLowerCase() === "y") action = actions.redo;
  if (!action) return;
  event.preventDefault();
  action();
});
$("asking").addEventListener("close", () => {
  useKey($("key").value);
  start();
});
$("file").addEventListener("change", () => attempt(imported));
$("likely").addEventListener("change", () => showNext());
for (const name of FIELDS) $(name).addEventListener("change", keepFields);
$("document").addEventListener("change", () => attempt(() => turnTo($("document").value)));
addEventListener("focus", () => shelf?.look());
$("model").addEventListener("change", () => attempt(() => open($("model").value)));
addEventListener("pagehide", () => {
  if (saving) save();
  shelf?.leave();
});
addEventListener("beforeunload", (event) => $("unkept").hidden || event.preventDefault());
if (!shelf) addEventListener("storage", receive);
addEventListener("hashchange", () => location.hash && location.reload());
for (const area of document.querySelectorAll("textarea")) area.addEventListener("focus", () => area.select());

function oncePerFrame(work) {
  let waits = false;
  return () => {
    if (waits) return;
    waits = true;
    requestAnimationFrame(() => {
      waits = false;
      work();
    });
  };
}

for (const id of ["desk", "document", "rename", "remove"]) $(id).hidden = !hasDesk;
$("colours").value = localStorage.getItem("textgen colours") ?? "";
$("colours").addEventListener("change", softly);
softly();

/** Colour the text as is chosen: it stays so in this browser. */
function softly() {
  document.body.dataset.colours = $("colours").value;
  localStorage.setItem("textgen colours", $("colours").value);
}

function otherColours() {
  $("colours").selectedIndex = ($("colours").selectedIndex + 1) % $("colours").length;
  softly();
}

STEPS.forEach((step, i) => {
  const swatch = document.createElement("span");
  swatch.className = `s${i + 1}`;
  swatch.title = `from ${step} bits`;
  $("surprising").before(swatch);
});
start();
