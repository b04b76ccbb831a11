// The documents of a run on the server: kept soon after each change, and never over what another has written.

import { documents, docx, keepDocument, latest, moveDocument, readDocument } from "./api.js";
import { Tree } from "./tree.js";

const AGAIN = 2000; // milliseconds until it is tried again where the server does not answer
const UNTITLED = "Untitled";
const LEFT = "textgen left"; // what a page of this tab was still writing when it went away
const LOOKS = 5; // until that is taken as not written

export class Shelf {
  /** `onOther(document)` takes in what another tab or person has written, and returns whether it is the same document;
   * `onKept(error)` is told whether what is here is kept. */
  constructor(onOther, onKept) {
    this.onOther = onOther;
    this.onKept = onKept;
    this.channel = new BroadcastChannel("textgen documents");
    this.channel.onmessage = ({ data }) => data.run === this.run && data.title === this.title && data.etag !== this.etag && this.look();
    this.look = latest(() => this.#look());
  }

  /** Open the documents of a run, at a title if it is there. Gives what is read. */
  async open(run, title) {
    this.run = run;
    this.titles = (await documents(run)).map((each) => each.title);
    return this.read(this.titles.includes(title) ? title : this.titles[0]);
  }

  /** Read a document; a new one without a title. */
  async read(title) {
    this.title = title ?? this.unused(UNTITLED);
    this.etag = this.changed = this.kept = null;
    if (title === undefined) return { tree: null, text: null };
    let found = await readDocument(this.run, title);
    const left = JSON.parse(sessionStorage.getItem(LEFT));
    const isUnwritten = () => left?.run === this.run && left.title === title && left.etag === found.etag;
    for (let looks = 0; looks < LOOKS && isUnwritten(); looks++) {
      await new Promise((done) => setTimeout(done, AGAIN / LOOKS));
      found = await readDocument(this.run, title);
    }
    if (isUnwritten()) found = { ...found, tree: left.tree, text: null };
    sessionStorage.removeItem(LEFT);
    this.etag = found.etag;
    return found;
  }

  /** Leave what is not written yet to the next page of this tab. */
  leave() {
    const tree = this.changed ?? this.writing;
    if (!tree || this.etag === null) return;
    try {
      sessionStorage.setItem(LEFT, JSON.stringify({ run: this.run, title: this.title, etag: this.etag, tree: tree.saved }));
    } catch {} // the browser has no room
  }

  /** The text of another document. */
  async textOf(title) {
    const { tree, text } = await readDocument(this.run, title);
    return text ?? new Tree(Tree.checked(tree)).text();
  }

  /** A title like a wished one that no document has. */
  unused(wished) {
    let title = wished;
    for (let number = 2; this.titles.includes(title); number++) title = `${wished} ${number}`;
    return title;
  }

  /** Keep a tree; what changes meanwhile is kept after it. */
  keep(tree) {
    this.changed = tree;
    this.keeping ??= this.#keep().finally(() => (this.keeping = null));
    return this.keeping;
  }

  async #keep() {
    while (this.changed) {
      const tree = (this.writing = this.changed);
      this.changed = null;
      if (this.etag === null && tree.versions.length === 1) continue; // nothing was written yet
      try {
        this.etag = await keepDocument(this.run, this.title, { text: tree.text(), tree: tree.saved }, this.etag);
        if (!this.titles.includes(this.title)) this.titles.unshift(this.title);
        this.channel.postMessage({ run: this.run, title: this.title, etag: this.etag });
        this.kept = tree;
        this.writing = null;
        this.onKept(null);
      } catch (error) {
        this.changed ??= tree;
        if (error.status === 412) await this.#meet();
        else {
          this.onKept(error);
          clearTimeout(this.later);
          this.later = setTimeout(() => this.changed && this.keep(this.changed), AGAIN);
          return;
        }
      }
    }
  }

  /** Another has written: take that in, or go on under another title. */
  async #meet() {
    const found = await readDocument(this.run, this.title).catch((error) => (error.status === 400 ? null : Promise.reject(error)));
    if (found && this.onOther(found)) this.etag = found.etag;
    else if (!found) this.etag = null; // it was removed, and is written again
    else await this.#part();
  }

  /** Go on under another title, since another document has this one. */
  async #part() {
    this.titles = (await documents(this.run)).map((each) => each.title);
    this.title = this.unused(this.title);
    this.etag = null;
  }

  /** See whether another has written, while nothing is to be kept here. */
  async #look() {
    if (!this.run || this.etag === null || this.changed || this.keeping) return;
    const found = await readDocument(this.run, this.title).catch(() => null);
    if (!found || found.etag === this.etag || this.changed || this.keeping) return;
    if (this.onOther(found)) this.etag = found.etag;
    else {
      await this.#part();
      if (this.kept) this.keep(this.kept);
    }
  }

  async rename(title) {
    await this.keeping;
    if (this.etag !== null) await moveDocument(this.run, this.title, "rename", { title });
    this.titles = this.titles.map((each) => (each === this.title ? title : each));
    this.title = title;
  }

  async remove() {
    await this.keeping;
    this.changed = null;
    if (this.etag !== null) await moveDocument(this.run, this.title, "remove");
    this.titles = this.titles.filter((each) => each !== this.title);
  }
}

/** The tree in an exported file. */
export function treeIn(text, name) {
  try {
    const { versions, current } = Tree.checked(JSON.parse(text));
    return { versions, current };
  } catch {
    throw new Error(`${name} is not an exported document`);
  }
}

/** Give a document to the person as a file: its text as "txt", "md" or "docx", or its tree as "json". */
export async function exportAs(kind, title, tree, model) {
  const text = tree.text();
  const made = {
    txt: () => new Blob([text], { type: "text/plain" }),
    md: () => new Blob([text], { type: "text/markdown" }),
    docx: () => docx(text),
    json: () => new Blob([JSON.stringify({ model, text, ...tree.saved }, null, 2)], { type: "application/json" }),
  }[kind];
  if (!made) return;
  const anchor = document.createElement("a");
  anchor.href = URL.createObjectURL(await made());
  anchor.download = `${title.replace(/[^\p{L}\p{N}.-]+/gu, "-")}.${kind}`;
  anchor.click();
  URL.revokeObjectURL(anchor.href);
}
