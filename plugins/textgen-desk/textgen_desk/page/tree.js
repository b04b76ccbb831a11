// All versions of the document as a tree: undo goes to the parent, redo to the child that was seen last, and
// continuations from one place are siblings.

import { alike, parting } from "./editor.js";

const PAUSE = 1000; // milliseconds after which typing begins a new version
const STEP = 12; // characters after which the next word does
const BEFORE = 20; // characters before an edit that the list of continuations shows
const TEXTS = 32; // of versions that are remembered, since a text is put together from all versions above it

export class Tree {
  /** A version is {id, parent, keep, tail, rest, made, children, seen}: so many characters of its parent's text, its own, and
   * so many from the end of its parent's. `made` has the options of a text that the model made, and is null for edits by hand. */
  constructor(saved) {
    this.id = saved?.id ?? String(Math.random()); // of one document, in whatever tab it is open
    this.versions = saved?.versions ?? [{ id: 0, parent: null, keep: 0, tail: "", rest: 0, made: null, children: [], seen: null }];
    this.current = saved?.current ?? 0;
    this.edited = 0;
    this.texts = new Map(); // by id, of some that have children, and so stay
  }

  get now() {
    return this.versions[this.current];
  }

  /** The text of a version. */
  text(id = this.current) {
    return this.#content(id).text;
  }

  /** The stretches of the current text that the model made: {start, end, made}, in order. */
  get made() {
    return this.#content(this.current).made;
  }

  /** Note an edit by hand. Some words typed in quick succession are one version, and so are characters that are deleted. */
  edit(text) {
    const before = this.text();
    const start = parting(before, text);
    const removed = before.length - start - alike(before, text, start);
    const inserted = text.slice(start, text.length - (before.length - start - removed));
    const goesOn = this.edited > Date.now() - PAUSE && !this.now.made && !this.now.children.length && this.current;
    const isWord = /\S/.test(inserted) && /\s/.test(before[start - 1]) && this.now.tail.length >= STEP;
    const isTyped = inserted.length === 1 && !removed && this.typed && start === this.place && !isWord;
    const isDeleted = !inserted && !this.typed && start + removed >= this.place && start <= this.place;
    this.edited = Date.now();
    this.typed = inserted.length > 0;
    this.place = start + inserted.length;
    if (!goesOn || !(isTyped || isDeleted)) this.current = this.#add(this.current, null).id;
    const parent = this.text(this.now.parent);
    this.now.keep = parting(parent, text);
    this.now.rest = alike(parent, text, this.now.keep);
    this.now.tail = text.slice(this.now.keep, text.length - this.now.rest);
  }

  /** Note another text, as a version of its own. */
  put(text) {
    this.edited = 0;
    this.edit(text);
    this.edited = 0;
  }

  /** A continuation of a version, empty so far. */
  branch(parent, made) {
    const version = this.#add(parent, made);
    version.keep = this.text(parent).length;
    return version;
  }

  go(id) {
    this.current = id;
    this.edited = 0;
    for (let at = this.now; at.parent !== null; at = this.versions[at.parent]) this.versions[at.parent].seen = at.id;
  }

  undo() {
    if (this.now.parent !== null) this.go(this.now.parent);
  }

  redo() {
    if (this.now.seen !== null) this.go(this.now.seen);
  }

  /** Where the edits by hand have come to that begin with a version; itself, if the model made it. */
  edits(id) {
    let at = this.versions[id];
    while (!at.made && at.seen !== null && !this.versions[at.seen].made) at = this.versions[at.seen];
    return at.id;
  }

  /** The continuations from the same place as the current one. */
  get siblings() {
    const { parent, made } = this.now;
    return made ? this.versions[parent].children.filter((id) => this.versions[id].made) : [];
  }

  /** Go to the sibling so many places on. */
  turn(by) {
    const all = this.siblings;
    if (all.length > 1) this.go(all[(all.indexOf(this.current) + by + all.length) % all.length]);
  }

  /** Take versions back into which nothing was written, if they are the newest. Returns whether they were. */
  drop(versions) {
    const isNewest = versions.every((version, i) => this.versions.at(i - versions.length) === version);
    if (!isNewest || versions.some(({ tail, children }) => tail || children.length)) return false;
    const parent = this.versions[versions[0].parent];
    this.versions.length -= versions.length;
    parent.children = parent.children.filter((id) => id < this.versions.length);
    parent.seen = parent.children.at(-1) ?? null;
    if (this.current >= this.versions.length) this.current = parent.id;
    return true;
  }

  /** Take in what another tab has saved of this document: versions that are not here, and text that has come to others.
   * Returns whether there was any. */
  merge(saved) {
    const ids = [0]; // here, of each version there
    let isChanged = false;
    this.texts.clear();
    for (const { parent, keep, tail, rest, made } of saved.versions.slice(1)) {
      const isSame = (one) =>
        one.keep === keep && one.rest === rest && JSON.stringify(one.made) === JSON.stringify(made) && (one.tail.startsWith(tail) || tail.startsWith(one.tail));
      const { children, seen } = this.versions[ids[parent]];
      let version = children.map((id) => this.versions[id]).find(isSame);
      isChanged ||= !version || version.tail.length < tail.length;
      version ??= Object.assign(this.#add(ids[parent], made), { keep, rest });
      if (seen !== null) this.versions[ids[parent]].seen = seen; // redo goes where it went in this tab
      if (version.tail.length < tail.length) version.tail = tail;
      ids.push(version.id);
    }
    return isChanged;
  }

  /** Add a text beside what there is, without going to it. */
  beside(text) {
    const version = this.#add(0, null);
    version.tail = text;
    this.edited = 0;
  }

  /** What was saved, if it is a tree; else an error. */
  static checked(saved) {
    const { id: own, versions, current } = saved;
    versions.forEach(({ id, parent, keep, tail, rest, made, children, seen }, i) => {
      const isRight = id === i && (i ? versions[parent].id < i : parent === null) && keep >= 0 && rest >= 0 && typeof tail === "string";
      const follow = [...children, ...(seen === null ? [] : [seen])].every((child) => versions[child].parent === i);
      if (!isRight || !follow || !Array.isArray(children) || typeof made !== "object") throw new TypeError("not a tree");
    });
    if (!Number.isInteger(current) || !versions[current]) throw new TypeError("not a tree");
    return { id: own, versions, current };
  }

  /** What `new Tree` takes, as JSON has it. */
  get saved() {
    return { id: this.id, versions: this.versions, current: this.current };
  }

  /** {text, made} of a version. */
  #content(id) {
    const path = [];
    let at = this.versions[id];
    for (; at && !this.texts.has(at.id); at = this.versions[at.parent]) path.push(at);
    let { text, made } = at ? this.texts.get(at.id) : { text: "", made: [] };
    while ((at = path.pop())) {
      const { keep, tail, rest } = at;
      const end = text.length - rest;
      if (at.made || keep < text.length) made = [...cut(made, 0, keep, 0), ...own(at), ...cut(made, end, text.length, keep + tail.length - end)];
      text = text.slice(0, keep) + tail + text.slice(end);
      if (at.children.length) this.texts.set(at.id, { text, made });
      if (this.texts.size > TEXTS) this.texts.delete(this.texts.keys().next().value);
    }
    return { text, made };
  }

  #add(parent, made) {
    const version = { id: this.versions.length, parent, keep: 0, tail: "", rest: 0, made, children: [], seen: null };
    this.versions.push(version);
    this.versions[parent].children.push(version.id);
    this.versions[parent].seen = version.id;
    return version;
  }
}

const own = ({ keep, tail, made }) => (made && tail ? [{ start: keep, end: keep + tail.length, made }] : []);

/** What stretches have between two places, moved by so many characters. */
function cut(ranges, from, to, by) {
  const parts = ranges.map(({ start, end, made }) => ({ start: Math.max(start, from) + by, end: Math.min(end, to) + by, made }));
  return parts.filter(({ start, end }) => start < end);
}

/** The continuations, and the beginnings if there are several, as nested lists of buttons; a list is nested where there is
 * more than one. */
export function drawTree(list, tree, onGo) {
  const path = new Set();
  for (let at = tree.now; at; at = tree.versions[at.parent]) path.add(at.id);
  const fill = (into, id) => {
    // Edits by hand are shown beside others of one place: else what was made after them stands in their place.
    const isOneOfSeveral = ({ parent }) => tree.versions[parent].children.filter((each) => !parent || !tree.versions[each].made).length > 1;
    const isShown = (version) => version.made || isOneOfSeveral(version);
    const shown = (each) => {
      let version = tree.versions[each];
      while (!isShown(version) && version.children.length === 1) version = tree.versions[version.children[0]];
      return isShown(version) ? [version.id] : version.children.flatMap(shown);
    };
    const children = tree.versions[id].children.flatMap(shown);
    for (const child of children) {
      const item = into.appendChild(document.createElement("li"));
      const button = item.appendChild(document.createElement("button"));
      button.type = "button";
      const last = tree.edits(child);
      const { made, keep, tail } = tree.versions[child];
      const own = made ? tail : tree.text(last);
      const text = own.slice(made ? 0 : own.lastIndexOf(" ", keep - BEFORE) + 1);
      button.textContent = text.replace(/\s+/g, " ").trim().slice(0, 80) || "(nothing)";
      button.classList.toggle("path", path.has(child));
      if (last === tree.current) button.setAttribute("aria-current", "true");
      button.addEventListener("click", () => onGo(last));
      const inner = children.length > 1 ? document.createElement("ol") : into;
      fill(inner, child);
      if (inner !== into && inner.childNodes.length) item.append(inner);
    }
  };
  list.replaceChildren();
  fill(list, 0);
}
