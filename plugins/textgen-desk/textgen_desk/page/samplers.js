// The sliders: the options of samplers that differ from the run's.

// name: [label, from, to, step, value at which it changes nothing]
const OPTIONS = {
  temperature: ["Boldness", 0, 2, 0.05, 1],
  top_k: ["Top k", 0, 100, 1, 0],
  top_p: ["Top p", 0.05, 1, 0.01, 1],
  min_p: ["Min p", 0, 0.5, 0.01, 0],
  repetition_penalty: ["Repetition penalty", 0.5, 2, 0.01, 1],
  presence_penalty: ["Presence penalty", -2, 2, 0.05, 0],
  frequency_penalty: ["Frequency penalty", -2, 2, 0.05, 0],
  dry_multiplier: ["DRY multiplier", 0, 3, 0.05, 0],
  xtc_probability: ["XTC probability", 0, 1, 0.05, 0],
};

export class Samplers {
  /** `onInput` is called while a slider moves. */
  constructor(own, more, onInput) {
    Object.assign(this, { own, more, onInput, options: {}, run: {} });
  }

  /** Sliders for a run, whose `sampling_options` are given: temperature, and under exact settings the others. */
  use(given) {
    const known = Object.keys(OPTIONS).filter((name) => name in given);
    const run = Object.fromEntries(known.map((name) => [name, given[name].value]).filter(([, value]) => value !== null));
    Object.assign(this, { run, options: {} });
    this.own.replaceChildren();
    this.more.replaceChildren();
    for (const name of known) {
      (name === "temperature" ? this.own : this.more).append(this.#slider(name, given[name].help));
      this.#show(name);
    }
  }

  /** Show options that were given for a text. */
  set(options) {
    this.options = Object.fromEntries(Object.entries(options).filter(([name]) => name in OPTIONS));
    for (const { name } of document.querySelectorAll(".slider input")) this.#show(name);
  }

  #neutral(name) {
    return this.run[name] ?? OPTIONS[name][4];
  }

  #slider(name, help) {
    const [label, min, max, step] = OPTIONS[name];
    const row = document.createElement("label");
    const [text, output, input] = ["span", "output", "input"].map((tag) => document.createElement(tag));
    row.className = "slider";
    row.id = `slider-${name}`;
    text.textContent = label;
    row.title = `${name}: ${help}`;
    Object.assign(input, { type: "range", min, max, step, name });
    input.setAttribute("aria-label", label);
    row.append(text, output, input);
    input.addEventListener("input", () => {
      const value = Number(input.value);
      if (value === this.#neutral(name)) delete this.options[name];
      else this.options[name] = value;
      this.#show(name);
      this.onInput();
    });
    input.addEventListener("dblclick", () => {
      input.value = this.#neutral(name);
      input.dispatchEvent(new Event("input"));
    });
    return row;
  }

  #show(name) {
    const row = document.getElementById(`slider-${name}`);
    const value = this.options[name] ?? this.#neutral(name);
    row.classList.toggle("changed", name in this.options);
    row.querySelector("input").value = value;
    row.querySelector("output").textContent = value === OPTIONS[name][4] && !(name in this.run) ? "off" : value;
  }
}
