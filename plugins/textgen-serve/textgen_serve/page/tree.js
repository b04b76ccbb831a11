// All versions of the document as a tree: undo goes to the parent, redo to the child that was seen last, and
// continuations from one place are siblings.

import { parting } from "./editor.js";

const PAUSE = 1000; // milliseconds after which typing begins a new version

export class Tree {
  /** A version is {id, parent, keep, tail, made, children, seen}: so many characters of its parent's text, and its own.
   * `made` has the options of a text that the model made, and is null for edits by hand. */
  constructor(saved) {
    this.id = saved?.id ?? String(Math.random()); // of one document, in whatever tab it is open
    this.versions = saved?.versions ?? [{ id: 0, parent: null, keep: 0, tail: "", made: null, children: [], seen: null }];
    this.current = saved?.current ?? 0;
    this.edited = 0;
  }

  get now() {
    return this.versions[this.current];
  }

  /** The text of a version. */
  text(id = this.current) {
    const parts = [];
    let end = Infinity;
    for (let at = this.versions[id]; at; at = this.versions[at.parent]) {
      if (end > at.keep) parts.unshift(at.tail.slice(0, end - at.keep));
      end = Math.min(end, at.keep);
    }
    return parts.join("");
  }

  /** Note an edit by hand. Edits in quick succession are one version. */
  edit(text) {
    const now = Date.now();
    const joins = now - this.edited < PAUSE && !this.now.made && !this.now.children.length && this.current;
    this.edited = now;
    if (!joins) this.current = this.#add(this.current, null).id;
    const before = this.text(this.now.parent);
    this.now.keep = parting(before, text);
    this.now.tail = text.slice(this.now.keep);
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

  /** The stretches of the current text that the model made: {start, end, made}, in order. */
  get made() {
    const ranges = [];
    let end = Infinity;
    for (let at = this.now; at; at = this.versions[at.parent]) {
      const last = Math.min(end, at.keep + at.tail.length);
      if (at.made && last > at.keep) ranges.unshift({ start: at.keep, end: last, made: at.made });
      end = Math.min(end, at.keep);
    }
    return ranges;
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
    for (const { parent, keep, tail, made } of saved.versions.slice(1)) {
      const isSame = (one) =>
        one.keep === keep && JSON.stringify(one.made) === JSON.stringify(made) && (one.tail.startsWith(tail) || tail.startsWith(one.tail));
      const { children, seen } = this.versions[ids[parent]];
      let version = children.map((id) => this.versions[id]).find(isSame);
      isChanged ||= !version || version.tail.length < tail.length;
      version ??= Object.assign(this.#add(ids[parent], made), { keep });
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
    versions.forEach(({ id, parent, keep, tail, made, children, seen }, i) => {
      const isRight = id === i && (i ? versions[parent].id < i : parent === null) && keep >= 0 && typeof tail === "string";
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

  #add(parent, made) {
    const version = { id: this.versions.length, parent, keep: 0, tail: "", made, children: [], seen: null };
    this.versions.push(version);
    this.versions[parent].children.push(version.id);
    this.versions[parent].seen = version.id;
    return version;
  }
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
    const shown = (each) => (isShown(tree.versions[each]) ? [each] : tree.versions[each].children.flatMap(shown));
    const children = tree.versions[id].children.flatMap(shown);
    for (const child of children) {
      const item = into.appendChild(document.createElement("li"));
      const button = item.appendChild(document.createElement("button"));
      button.type = "button";
      const last = tree.edits(child);
      const text = tree.versions[child].made ? tree.versions[child].tail : tree.text(last);
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
