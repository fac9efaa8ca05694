// A curve of the size of a word. Decoration beside its number: what it tells in words is told by the page around.

import { html } from "../ui.js";

const WIDTH = 96;
const HEIGHT = 24;
const EDGE = 2;

/** points: [[x, y], ...] in order of x. */
export function Sparkline({ points }) {
  if (points.length < 2) return null;
  const xs = points.map(([x]) => x);
  const ys = points.map(([, y]) => y);
  const [left, right] = [xs[0], xs.at(-1)];
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  const at = ([x, y]) => {
    const across = EDGE + ((x - left) / (right - left || 1)) * (WIDTH - 2 * EDGE);
    const down = EDGE + (1 - (y - low) / (high - low || 1)) * (HEIGHT - 2 * EDGE);
    return `${across.toFixed(1)},${down.toFixed(1)}`;
  };
  return html`
    <svg class="sparkline" viewBox="0 0 ${WIDTH} ${HEIGHT}" width=${WIDTH} height=${HEIGHT} aria-hidden="true">
      <polyline points=${points.map(at).join(" ")} fill="none" stroke="currentColor" stroke-width="1.5" />
    </svg>
  `;
}
