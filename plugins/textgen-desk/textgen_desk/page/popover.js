// Where a popover stands.

const GAP = 8; // pixels between it and the edges of the window

/** Put a popover below a box of the window, or above it where there is no room below, but into the window. */
export function putBeside(popover, { left, top, bottom }) {
  const { width, height } = popover.getBoundingClientRect();
  const y = bottom + height + GAP < innerHeight ? bottom + GAP / 2 : top - height - GAP / 2;
  const inside = (place, size, most) => `${Math.max(GAP, Math.min(place, most - size - GAP))}px`;
  popover.style.setProperty("--x", inside(left, width, innerWidth));
  popover.style.setProperty("--y", inside(y, height, innerHeight));
}
