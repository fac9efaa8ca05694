// What came of each run, as a table that sorts by any of its columns.

import { useState } from "preact/hooks";
import { number, State } from "../../format.js";
import { html } from "../../ui.js";
import { comparable, shown } from "./differences.js";

/** The metrics that are compared: the newest value of each run, held-out where there is one, by name. */
export const METRICS = ["held_out.loss", "held_out.rewards/accuracies", "held_out.rewards/margins", "train.loss", "train.rewards/accuracies", "train.rewards/margins", "train.kl"];

/** The newest value of "split.metric" of a run; undefined if it has none. */
export function outcome(run, metric) {
  const split = metric.split(".", 1)[0];
  const name = metric.slice(split.length + 1);
  return run.curves[split].findLast(({ mean }) => name in mean)?.mean[name];
}

export const measured = (runs) => METRICS.filter((metric) => runs.some((run) => outcome(run, metric) !== undefined));

export function Outcomes({ runs, rows }) {
  const [sort, setSort] = useState({ by: null, down: false });
  const columns = [
    ...comparable(rows).map(({ path, values }) => ({ name: path, value: (run) => values[runs.indexOf(run)], text: shown })),
    ...measured(runs).map((name) => ({ name, value: (run) => outcome(run, name), text: number, numeric: true })),
  ];
  const by = columns.find(({ name }) => name === sort.by);
  const sorted = by ? [...runs].sort((a, b) => (sort.down ? -1 : 1) * compare(by.value(a), by.value(b), sort.down)) : runs;
  return html`
    <div class="table-box" tabindex="0" role="region" aria-label="Outcomes">
      <table class="outcomes">
        <thead>
          <tr>
            <th>Run</th><th>State</th>
            ${columns.map(
              ({ name, numeric }) => html`
                <th key=${name} class=${numeric ? "number" : ""} aria-sort=${name === sort.by ? (sort.down ? "descending" : "ascending") : "none"}>
                  <button class="quiet" onClick=${() => setSort({ by: name, down: sort.by === name && !sort.down })}>
                    ${name}${name === sort.by ? (sort.down ? " ↓" : " ↑") : ""}
                  </button>
                </th>
              `,
            )}
          </tr>
        </thead>
        <tbody>
          ${sorted.map(
            (run) => html`
              <tr key=${run.job.id}>
                <th scope="row"><span class="swatch" style=${{ background: `var(${run.colour})` }}></span> <a href="/jobs/${run.job.id}">${run.title}</a></th>
                <td><${State} state=${run.job.state} /></td>
                ${columns.map(({ name, value, text, numeric }) => html`<td key=${name} class=${numeric ? "number" : ""}>${text(value(run))}</td>`)}
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  `;
}

/** Numbers by size, the rest as text; what is missing comes last either way. */
function compare(a, b, down) {
  const missing = (value) => value === undefined || value === null;
  if (missing(a) || missing(b)) return (down ? -1 : 1) * (missing(a) - missing(b));
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}
