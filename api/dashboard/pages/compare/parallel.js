// Parallel coordinates: one upright axis for each option that differs and for what was measured, one line a run.

import { useState } from "preact/hooks";
import { number } from "../../format.js";
import { html } from "../../ui.js";
import { comparable, shown } from "./differences.js";
import { measured, outcome } from "./outcomes.js";

const HEIGHT = 260;
const TOP = 46;
const BOTTOM = 20;
const APART = 150;
const SIDE = 80;
const MAX_OPTIONS = 7;
const LEAST_PX = 860; // narrower, its text would be too small: it is scrolled instead

export function Parallel({ runs, rows, hidden }) {
  const [pointed, setPointed] = useState(null);
  const drawn = runs.filter(({ job }) => !hidden.has(job.id));
  const axes = axesOf(runs, comparable(rows).slice(0, MAX_OPTIONS));
  if (axes.length < 2) return html`<p class="muted">There is nothing to draw yet: runs that differ in something, and were measured, are lines here.</p>`;
  const width = 2 * SIDE + APART * (axes.length - 1);
  const x = (index) => SIDE + APART * index;
  const y = (share) => HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM);
  return html`
    <div class="table-box" tabindex="0" role="region" aria-label="Parallel coordinates">
      <svg class="parallel" viewBox="0 0 ${width} ${HEIGHT}" role="img"
        style=${{ width: `${width}px`, minWidth: `${Math.min(width, LEAST_PX)}px` }}
        aria-label="${drawn.length} runs over ${axes.map(({ name }) => name).join(", ")}; the table of outcomes has the values">
        ${axes.map(
          (axis, index) => html`
            <g key=${axis.name}>
              <line class="axis-line" x1=${x(index)} x2=${x(index)} y1=${TOP} y2=${HEIGHT - BOTTOM} />
              <text class="axis-name" text-anchor="middle">
                <title>${axis.name}</title>
                ${inLines(axis.name).map((line, at) => html`<tspan key=${at} x=${x(index)} y=${12 + 13 * at}>${short(line)}</tspan>`)}
              </text>
            </g>
          `,
        )}
        ${drawn.map((run) => {
          const points = axes
            .map((axis, index) => [x(index), axis.share(run), apart(axis, run, drawn)])
            .filter(([, share]) => share !== null);
          return html`
            <polyline key=${run.job.id} class="run ${pointed && pointed !== run.job.id ? "faint" : ""}" fill="none"
              style=${{ stroke: `var(${run.colour})` }} points=${points.map(([at, share, aside]) => `${at},${(y(share) + aside).toFixed(1)}`).join(" ")}
              onMouseEnter=${() => setPointed(run.job.id)} onMouseLeave=${() => setPointed(null)}>
              <title>${run.title}</title>
            </polyline>
          `;
        })}
        ${axes.map((axis, index) => axis.ticks.map((tick) => html`<${Tick} key=${`${axis.name} ${tick.text}`} ...${tick} x=${x(index)} y=${y(tick.share)} />`))}
      </svg>
    </div>
  `;
}

/** Above the upper end and below the lower one; in between beside the axis. The lines are drawn before. */
const Tick = ({ share, text, x, y }) =>
  share === 0 || share === 1
    ? html`<text class="tick" text-anchor="middle" x=${x} y=${share ? y - 7 : y + 15}>${text}</text>`
    : html`<text class="tick" x=${x + 8} y=${y + 4}>${text}</text>`;

/** Pixels from its place: runs with the same value on an axis go through beside each other. */
function apart(axis, run, drawn) {
  const same = drawn.filter((one) => axis.share(one) === axis.share(run));
  return (same.indexOf(run) - (same.length - 1) / 2) * Math.min(4, 40 / same.length);
}

/** A long path in two, where its last name begins: what is before tells "train" from "held_out". */
function inLines(name) {
  const dot = name.lastIndexOf(".");
  return name.length > 19 && dot > 0 ? [name.slice(0, dot), name.slice(dot + 1)] : [name];
}

const short = (name) => (name.length > 19 ? `…${name.slice(-18)}` : name);

/** [{name, share(run): 0 to 1 from the bottom or null, ticks: [{share, text}]}] */
function axesOf(runs, rows) {
  const options = rows.map(({ path, values }) => ({ name: path, values }));
  const results = measured(runs).map((name) => ({ name, values: runs.map((run) => outcome(run, name)) }));
  return [...options, ...results].map(({ name, values }) => {
    const there = values.filter((value) => value !== undefined && value !== null);
    const place = there.length > 0 && there.every((value) => typeof value === "number") ? scale(there) : categories(values);
    return { name, ticks: place.ticks, share: (run) => place.share(values[runs.indexOf(run)]) };
  });
}

/** Logarithmic where the values are above 0 and span more than a factor of 50, such as learning rates. */
function scale(values) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const log = low > 0 && high / low > 50;
  const at = (value) => (log ? Math.log(value) : value);
  const share = (value) =>
    value === undefined || value === null ? null : low === high ? 0.5 : (at(value) - at(low)) / (at(high) - at(low));
  const ends = low === high ? [low] : [low, high];
  return { share, ticks: ends.map((value) => ({ share: share(value), text: number(value) })) };
}

function categories(values) {
  const names = [...new Set(values.map(shown))].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const share = (value) => (names.length === 1 ? 0.5 : names.indexOf(shown(value)) / (names.length - 1));
  return { share, ticks: names.slice(0, 12).map((text) => ({ share: share(text), text: short(text) })) };
}
