// Two small charts: ranks of the tokens of a text, and the losses of the run.

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [288, 90];
const RANKS = [[1, "1"], [2, "2"], [3, "3"], [5, "4–5"], [10, "6–10"], [100, "11–100"], [Infinity, "more"]];

/** How often which rank occurs, of tokens typed by hand and of those that the model made: shares of each. */
export function drawRanks(into, tokens, isMade) {
  const groups = { typed: [], made: [] };
  for (const token of tokens) {
    if (token.rank !== null) groups[isMade(token) ? "made" : "typed"].push(token);
  }
  const shares = Object.values(groups).map((group) =>
    RANKS.map(([most], i) => group.filter(({ rank }) => (RANKS[i - 1]?.[0] ?? 0) < rank && rank <= most).length / (group.length || 1)),
  );
  const largest = Math.max(...shares.flat()) || 1;
  const words = RANKS.map(([, label], i) => `${label}: ${shares.map((each) => `${Math.round(each[i] * 100)}%`).join(" and ")}`);
  const svg = chart(`Guesses for ${groups.typed.length} word pieces typed and ${groups.made.length} written by the model; ${words.join(", ")}`);
  const slot = WIDTH / RANKS.length;
  RANKS.forEach(([, label], i) => {
    Object.keys(groups).forEach((name, side) => {
      const height = (shares[side][i] / largest) * (HEIGHT - 2);
      add(svg, "rect", { class: name, x: i * slot + 4 + side * (slot / 2 - 4), y: HEIGHT - height, width: slot / 2 - 5, height, rx: 1.5 });
    });
    add(svg, "text", { x: (i + 0.5) * slot, y: HEIGHT + 14, "text-anchor": "middle" }).textContent = label;
  });
  add(svg, "line", { class: "axis", x1: 0, x2: WIDTH, y1: HEIGHT + 0.5, y2: HEIGHT + 0.5 });
  const key = document.createElement("p");
  key.className = "key";
  const made = document.createElement("b");
  made.textContent = `the model's ${bits(groups.made)}`;
  key.title = "bits per token";
  key.append(`Surprise: yours ${bits(groups.typed)}, `, made);
  into.replaceChildren(svg, key);
}

/** The losses of a run: rows {step, training_loss, validation_loss}. */
export function drawLosses(into, rows) {
  const lines = ["training_loss", "validation_loss"].map((name) => rows.filter((row) => Number.isFinite(row[name])).map((row) => [row.step, row[name]]));
  const [steps, losses] = [0, 1].map((axis) => lines.flat().map((point) => point[axis]));
  if (lines.every((points) => points.length < 2)) return false;
  const [last, low, high] = [Math.max(...steps), Math.min(...losses), Math.max(...losses)];
  const at = ([step, loss]) => `${(step / last) * WIDTH},${HEIGHT - ((loss - low) / (high - low || 1)) * (HEIGHT - 8)}`;
  const svg = chart(`Error from ${high.toFixed(2)} to ${low.toFixed(2)} over ${last} steps`);
  add(svg, "line", { class: "axis", x1: 0, x2: WIDTH, y1: HEIGHT + 0.5, y2: HEIGHT + 0.5 });
  lines.forEach((points, i) => add(svg, "polyline", { class: ["training", "validation"][i], points: points.map(at).join(" ") }));
  add(svg, "text", { x: 0, y: HEIGHT + 14 }).textContent = "0";
  add(svg, "text", { x: WIDTH, y: HEIGHT + 14, "text-anchor": "end" }).textContent = `${last.toLocaleString("en")} steps`;
  const key = document.createElement("p");
  key.className = "key";
  const held = document.createElement("b");
  const [training, validation] = lines.map((points) => points.at(-1)?.[1].toFixed(2));
  held.textContent = validation ? `${validation} on pages kept from it` : "";
  key.title = "training and held-out loss, in nats per token";
  key.append(`Error for a word piece: ${training} on what it read${validation ? ", " : ""}`, held);
  into.replaceChildren(svg, key);
  return true;
}

function bits(tokens) {
  return tokens.length ? (tokens.reduce((sum, token) => sum + token.bits, 0) / tokens.length).toFixed(2) : "–";
}

function chart(title) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT + 16}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", title);
  return svg;
}

function add(svg, tag, attributes) {
  const element = svg.appendChild(document.createElementNS(SVG, tag));
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
