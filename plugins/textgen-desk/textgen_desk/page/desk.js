// The desk: texts are dropped here, and models trained on them. Everything is done by commands, which it shows.

import { act, addText, hasKey, newRun, onDesk, restore, takeKey, useKey } from "./api.js";
import { drawLosses } from "./charts.js";

const [SOON, LATER] = [1000, 5000]; // milliseconds between two looks, while something goes on and else
const ALIVE = ["looking", "starting", "running"];
const STATES = {
  empty: "no text yet",
  new: "not read yet",
  looking: "reading the text, and trying what to start from…",
  ready: "ready to be trained",
  starting: "starting…",
  running: "training",
  unfinished: "stopped; it goes on where it was",
  finished: "trained",
  damaged: "damaged",
};

const $ = (id) => document.getElementById(id);
const cards = new Map();
let timer;

async function look() {
  clearTimeout(timer);
  let pause = LATER;
  try {
    const { folder, trains, runs, removed } = await onDesk();
    $("facts").textContent = folder;
    $("taking").hidden = !trains;
    $("none").hidden = runs.length > 0;
    for (const name of cards.keys()) if (!runs.some((run) => run.name === name)) drop(name);
    for (const [i, run] of runs.entries()) {
      const card = cards.get(run.name) ?? make(run.name);
      const isAlive = ALIVE.includes(run.status);
      if (isAlive) pause = SOON;
      const isOpen = isAlive || card.querySelector(".log").open || card.dataset.status !== run.status;
      show(card, isOpen ? await onDesk(run.name) : run, trains);
      if ($("runs").children[i] !== card) $("runs").insertBefore(card, $("runs").children[i] ?? null);
    }
    showBin(trains ? removed : { ...removed, "": [] });
    document.body.dataset.ready = "";
  } catch (error) {
    if (error.status === 401) {
      $("refused").textContent = hasKey() ? error.message : "";
      return $("asking").open || $("asking").showModal();
    }
    say(error.message, true);
  }
  clearTimeout(timer);
  timer = setTimeout(look, pause);
}

function drop(name) {
  cards.get(name).remove();
  cards.delete(name);
}

function make(name) {
  const card = $("run").content.firstElementChild.cloneNode(true);
  const at = (selector) => card.querySelector(selector);
  cards.set(name, card);
  at(".name").textContent = name;
  at(".write").href = `write#model=${encodeURIComponent(name)}`;
  at(".minutes").id = `minutes ${name}`;
  at(".training").addEventListener("submit", (event) => {
    event.preventDefault();
    const start = at(".starts input:checked")?.value;
    if (start) work(() => act(name, "train", { minutes: at(".minutes").valueAsNumber, start }), event.submitter);
  });
  const click = (selector, action) => at(selector).addEventListener("click", ({ currentTarget }) => work(action, currentTarget));
  click(".look", () => act(name, "look", { minutes: at(".minutes").valueAsNumber || 2, encoding: at(".encoding").value.trim() }));
  click(".stop", () => act(name, "stop"));
  click(".resume", () => act(name, "resume"));
  click(".extend", () => act(name, "extend", { minutes: at(".extra").valueAsNumber }));
  click(".remove", async () => {
    await act(name, "remove");
    say(`${name} is in the bin, at the end of this page`);
  });
  at(".replace").addEventListener("click", () => at(".changed").click());
  at(".changed").addEventListener("change", () => work(() => change(name, [...at(".changed").files])));
  at(".rename").addEventListener("click", () => rename(name));
  return card;
}

/** Show how things stand, without touching what a person may be typing in. */
function show(card, run, trains) {
  const at = (selector) => card.querySelector(selector);
  const { status, found, own } = run;
  card.dataset.status = status;
  card.classList.toggle("failed", run.failed);
  const isAlive = ALIVE.includes(status);
  put(at(".state"), [STATES[status] ?? status, ...facts(run)].join(" · "));
  const isSaid = (isAlive && !run.samples?.length) || run.failed || status === "damaged";
  put(at(".said"), isSaid ? plain(run.cause || run.said) : "");
  put(at(".command code"), run.commands);
  const bar = at("progress");
  bar.hidden = status !== "running";
  if (run.steps && run.step !== null) bar.value = run.step / run.steps;
  else bar.removeAttribute("value");
  bar.setAttribute("aria-label", `Training of ${run.name}`);
  const isNew = trains && own && !isAlive && ["ready", "new"].includes(status);
  at(".training").hidden = !isNew;
  at(".training button").disabled = !found;
  at(".reading").hidden = !run.failed;
  if (found) starts(card, run);
  at(".write").hidden = status !== "finished";
  at(".stop").hidden = !(trains && isAlive);
  at(".resume").hidden = !(trains && own && status === "unfinished");
  at(".more").hidden = !(trains && own && status === "finished");
  at(".rename").hidden = at(".remove").hidden = !trains || isAlive;
  if (run.metrics) at(".losses").hidden = !drawLosses(at(".losses"), run.metrics);
  if (run.samples) {
    at(".samples").hidden = !run.samples.length;
    put(at("blockquote"), run.samples[0]?.text ?? "");
  }
  if (run.log !== undefined) put(at(".log pre"), run.log);
  at(".log").hidden = !run.said && !run.commands;
}

/** List what was removed, each with a button that brings it back. */
function showBin(removed) {
  const version = JSON.stringify(removed);
  if ($("bin").dataset.version === version) return;
  $("bin").dataset.version = version;
  const entries = Object.entries(removed).flatMap(([run, names]) => names.map((name) => [run, name]));
  $("bin").hidden = entries.length === 0;
  $("bin").querySelector("ul").replaceChildren(
    ...entries.map(([run, name]) => {
      const item = line("li", `${name.replace(/ \d+$/, "")}${run && ` of ${run}`} `);
      const button = item.appendChild(line("button", "Restore"));
      button.type = "button";
      button.addEventListener("click", () => work(() => restore(name, run)));
      return item;
    }),
  );
}

function facts({ status, found, texts, seconds, bytes, step, steps }) {
  const parts = [];
  if (texts.length) parts.push(texts.length > 1 ? `${texts.length} files` : texts[0]);
  if (found?.size) {
    const { language, size, documents, vocabulary } = found;
    parts.push(language || "another language", `${count(size)} characters, ${count(vocabulary)} different`);
    parts.push(documents ? `${count(documents)} texts of their own` : "one text");
  }
  if (status === "running" && steps) parts.push(`step ${count(step)} of ${count(steps)}`);
  if (seconds) parts.push(`${(seconds / 60).toFixed(1)} minutes`);
  if (bytes) parts.push(`${(bytes / 1e6).toFixed(1)} MB`);
  return parts;
}

function starts(card, { name, found }) {
  const into = card.querySelector(".starts");
  const version = JSON.stringify(found.starts);
  if (into.dataset.version === version) return;
  into.dataset.version = version;
  card.querySelector(".minutes").value = found.seconds / 60;
  put(card.querySelector(".remarks"), "");
  for (const remark of found.remarks) card.querySelector(".remarks").append(line("li", remark));
  const tried = found.starts.filter((start) => start.loss !== null);
  const best = tried.sort((one, other) => one.loss - other.loss)[0];
  into.replaceChildren(
    ...found.starts.map((start) => {
      const label = document.createElement("label");
      const input = label.appendChild(document.createElement("input"));
      Object.assign(input, { type: "radio", name: `start of ${name}`, value: start.name, checked: start.name === found.start });
      const title = start.name === "none" ? "a new model" : start.name;
      label.append(line("span", start === best ? `${title} (best)` : title));
      const least = start.seconds > found.seconds ? `needs ${Math.ceil(start.seconds / 60)} minutes` : "";
      const loss = start.loss === null ? "" : `expected error ${start.loss.toFixed(2)} a letter`;
      const pass = start.a_pass ? `${Math.round(start.a_pass)} seconds for each reading` : "";
      label.append(line("small", [loss, least, pass].filter(Boolean).join("; ")));
      return label;
    }),
  );
}

/** Take files as one text, or as the texts of one run. */
async function take(name, files) {
  const texts = files.filter((file) => !file.name.startsWith(".") && file.size);
  if (!texts.length) throw new Error("There is no text in what was given");
  const own = await newRun(name);
  for (const [i, file] of texts.entries()) {
    say(`copying ${i + 1} of ${texts.length}: ${file.name}`);
    await addText(own, unique(file, texts), file);
  }
  say("");
  await act(own, "look", { minutes: 2, encoding: "auto" });
}

/** A changed text, with which a model is trained on. One text takes the place of one, whatever its name. */
async function change(name, files) {
  const { texts } = await onDesk(name);
  const own = texts.length === 1 ? texts[0] : null;
  const kind = (name) => (/\.\w{1,8}(\.(gz|zst))?$/.exec(name.toLowerCase()) ?? [".txt"])[0];
  if (!files.length) return;
  if (own && (files.length > 1 || kind(files[0].name) !== kind(own))) throw new Error(`Give one file of the kind of ${own}`);
  for (const file of files) await addText(name, own ?? file.name, file);
  await act(name, "update");
}

/** The name of a file, with its folders if another has the same. */
function unique(file, files) {
  const isSole = files.filter(({ name }) => name === file.name).length === 1;
  return isSole ? file.name : (file.webkitRelativePath || file.path || file.name).replaceAll("/", "-");
}

function rename(name) {
  $("name").value = name;
  $("naming").returnValue = "";
  $("naming").onclose = () => $("naming").returnValue && work(() => act(name, "rename", { name: $("name").value.trim() }));
  $("naming").showModal();
}

/** Do what a person asked for, say what is wrong with it, and look again. Until then its button cannot be clicked. */
async function work(action, button) {
  say("");
  if (button) button.disabled = true;
  try {
    await action();
  } catch (error) {
    say(error.message, true);
  }
  if (button) button.disabled = false;
  await look();
}

function say(text, isError = false) {
  put($("status"), text);
  $("status").classList.toggle("error", isError);
}

function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function line(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}

/** What a command says, in the words of this page. */
function plain(text) {
  const left = text.match(/(\d+) s left$/);
  if (left) return Number(left[1]) < 90 ? `${left[1]} seconds left` : `${Math.round(left[1] / 60)} minutes left`;
  return text;
}

const count = (number) => number.toLocaleString("en");
const stem = (name) => name.replace(/\.[^.]*$/, "") || name;

/** The files of what is dropped, those of folders too. */
async function dropped(items) {
  const entries = [...items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const read = async (entry) => {
    if (entry.isFile) {
      const file = await new Promise((done, fail) => entry.file(done, fail));
      return [Object.assign(file, { path: entry.fullPath.slice(1) })];
    }
    const reader = entry.createReader();
    const inside = [];
    for (let some; (some = await new Promise((done, fail) => reader.readEntries(done, fail))).length;) inside.push(...some);
    return (await Promise.all(inside.map(read))).flat();
  };
  const files = (await Promise.all(entries.map(read))).flat();
  return [entries.length === 1 ? stem(entries[0].name) : stem(files[0]?.name ?? ""), files];
}

const zone = $("drop");
addEventListener("dragover", (event) => {
  event.preventDefault();
  zone.classList.add("over");
});
addEventListener("dragleave", () => zone.classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  zone.classList.remove("over");
  const found = dropped(event.dataTransfer.items);
  if (!$("taking").hidden) work(async () => take(...(await found)));
});
$("choose").addEventListener("click", () => $("files").click());
$("choose-folder").addEventListener("click", () => $("folder-files").click());
for (const id of ["files", "folder-files"]) {
  $(id).addEventListener("change", () => {
    const files = [...$(id).files];
    $(id).value = "";
    const name = files[0]?.webkitRelativePath.split("/")[0] || stem(files[0]?.name ?? "");
    if (files.length) work(() => take(name, files));
  });
}
$("paste").addEventListener("click", () => {
  const name = $("pasted-name").value.trim() || "my text";
  work(async () => {
    await take(name, [new File([$("pasted").value], `${name}.txt`, { type: "text/plain" })]);
    $("pasted").value = "";
  });
});
$("asking").addEventListener("close", () => {
  useKey($("key").value);
  look();
});
takeKey();
look();
