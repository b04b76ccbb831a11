// Lists of likely tokens: a bar for the probability after the samplers, a fainter one for that before them.

const SHOWN = { "\n": "⏎", "\t": "⇥", " ": "␣", "\u00a0": "⍽" };

/** A token's text with its white space made visible. */
export const visible = (text) => text.replace(/[\n\t \u00a0]/g, (space) => SHOWN[space]) || "(end)";

/** Fill a list with buttons; `onTake(token)` is called with the one that is clicked. */
export function drawTokens(list, tokens, current, onTake) {
  // Buttons stay, so that the focus does, and bars move to their new lengths.
  while (list.childNodes.length > tokens.length) list.lastChild.remove();
  while (list.childNodes.length < tokens.length) list.append(row());
  tokens.forEach((each, i) => {
    const { text: token, word = token, logprob, sampled_logprob: sampled } = each;
    const [item, button] = [list.childNodes[i], list.childNodes[i].firstChild];
    const [name, bars, share] = button.childNodes;
    const [before, after] = [Math.exp(logprob), sampled === null ? 0 : Math.exp(sampled)];
    name.textContent = visible(each.word?.trim() || word);
    bars.firstChild.style.setProperty("--share", `${after * 100}%`);
    bars.lastChild.style.setProperty("--share", `${before * 100}%`);
    share.textContent = sampled === null ? "–" : percent(after);
    button.title = `${word === token ? "" : `begins with “${visible(token)}”, `}${percent(before)} by the model, ${sampled === null ? "excluded" : percent(after)} by the settings`;
    button.setAttribute("aria-label", `${name.textContent}: ${button.title}`);
    item.classList.toggle("excluded", sampled === null);
    button.setAttribute("aria-current", token === current);
    button.disabled = !token;
    button.onclick = () => onTake(each);
  });
}

/** Let arrow keys move between the buttons of a list. */
export function withArrows(list) {
  list.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || event.altKey) return;
    event.preventDefault();
    const buttons = [...list.querySelectorAll("button:enabled")];
    const place = buttons.indexOf(document.activeElement) + step;
    buttons.at(place % buttons.length)?.focus();
  });
}

function row() {
  const item = document.createElement("li");
  const button = item.appendChild(document.createElement("button"));
  button.type = "button";
  for (const name of ["name", "bars", "share"]) {
    button.appendChild(document.createElement("span")).className = name;
  }
  button.childNodes[1].append(document.createElement("i"), document.createElement("i"));
  return item;
}

function percent(share) {
  if (share >= 0.9995) return "100%";
  return share < 0.001 ? "<0.1%" : `${(share * 100).toFixed(1)}%`;
}
