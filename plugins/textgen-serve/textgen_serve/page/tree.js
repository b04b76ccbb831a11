// All versions of the document as a tree: undo goes to the parent, redo to the child that was seen last, and
// continuations from one place are siblings.

import { parting } from "./editor.js";

const PAUSE = 1000; // milliseconds after which typing begins a new version

export class Tree {
  /** A version is {id, parent, keep, tail, made, children, seen}: so many characters of its parent's text, and its own.
   * `made` has the options of a text that the model made, with `reason`, and is null for edits by hand. */
  constructor(saved) {
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

  /** What was saved, if it is a tree; else an error. */
  static checked(saved) {
    if (saved === null) return null;
    const { versions, current } = saved;
    versions.forEach(({ id, parent, keep, tail, made, children, seen }, i) => {
      const isRight = id === i && (i ? versions[parent].id < i : parent === null) && keep >= 0 && typeof tail === "string";
      const follow = [...children, ...(seen === null ? [] : [seen])].every((child) => versions[child].parent === i);
      if (!isRight || !follow || typeof made !== "object") throw new TypeError("not a tree");
    });
    if (!versions[current]) throw new TypeError("not a tree");
    return { versions, current };
  }

  /** What `new Tree` takes, as JSON has it. */
  get saved() {
    return { versions: this.versions, current: this.current };
  }

  #add(parent, made) {
    const version = { id: this.versions.length, parent, keep: 0, tail: "", made, children: [], seen: null };
    this.versions.push(version);
    this.versions[parent].children.push(version.id);
    this.versions[parent].seen = version.id;
    return version;
  }
}

/** The continuations as nested lists of buttons; a list is nested where there is more than one. */
export function drawTree(list, tree, onGo) {
  const path = new Set();
  for (let at = tree.now; at; at = tree.versions[at.parent]) path.add(at.id);
  const fill = (into, id) => {
    // Edits by hand are not shown: what was made after them stands in their place.
    const shown = (each) => (tree.versions[each].made ? [each] : tree.versions[each].children.flatMap(shown));
    const children = tree.versions[id].children.flatMap(shown);
    for (const child of children) {
      const item = into.appendChild(document.createElement("li"));
      const button = item.appendChild(document.createElement("button"));
      button.type = "button";
      button.textContent = tree.versions[child].tail.replace(/\s+/g, " ").trim().slice(0, 80) || "(nothing)";
      button.classList.toggle("path", path.has(child));
      if (child === tree.current) button.setAttribute("aria-current", "true");
      button.addEventListener("click", () => onGo(child));
      const inner = children.length > 1 ? document.createElement("ol") : into;
      fill(inner, child);
      if (inner !== into && inner.childNodes.length) item.append(inner);
    }
  };
  list.replaceChildren();
  fill(list, 0);
}
