// What the requests of runs differ in.

import { jobTitle } from "../../format.js";
import { html } from "../../ui.js";

/**
 * [{path, values}], one value a specification in its order, for each dotted path that is not the same in all of them;
 * undefined where a specification has no such path. Names and labels are left out: they change nothing.
 */
export function differences(specs) {
  const flat = specs.map((spec) => {
    const { name, metadata, ...rest } = spec;
    return new Map(leaves(rest));
  });
  const paths = [...new Set(flat.flatMap((one) => [...one.keys()]))];
  return paths
    .map((path) => ({ path, values: flat.map((one) => one.get(path)) }))
    .filter(({ values }) => new Set(values.map((value) => JSON.stringify(value))).size > 1);
}

/**
 * Of `differences`, those to line runs up by: kinds first, then the options that all of them have. What only one kind of
 * loss knows says no more than the kind does.
 */
export const comparable = (rows) => {
  const isKind = ({ path }) => path.endsWith(".type");
  return [...rows.filter(isKind), ...rows.filter((row) => !isKind(row) && !row.values.includes(undefined))];
};

const IN_TITLE = 3; // options that tell a run from the others

/** The runs with their `title`: what they are called, or what they differ in where that does not tell them apart. */
export function titled(runs, rows) {
  const names = runs.map(({ job }) => job.name ?? job.spec.name);
  const said = comparable(rows).slice(0, IN_TITLE);
  return runs.map((run, index) => {
    const name = names[index];
    const options = said.map(({ path, values }) => `${path.split(".").at(-1)} ${shown(values[index])}`).join(", ");
    const alone = name && names.indexOf(name) === names.lastIndexOf(name);
    return { ...run, title: alone ? name : [name, options].filter(Boolean).join(": ") || jobTitle(run.job) };
  });
}

function leaves(value, path = "") {
  if (value === null || typeof value !== "object") return [[path, value]];
  return Object.entries(value).flatMap(([name, one]) => leaves(one, path ? `${path}.${name}` : name));
}

export const shown = (value) => (value === undefined ? "–" : value === null ? "default" : String(value));

export function Differences({ runs, rows }) {
  if (rows.length === 0) return html`<p class="muted">None: the requests are the same.</p>`;
  return html`
    <div class="table-box" tabindex="0" role="region" aria-label="Differences of the requests">
      <table class="differences">
        <thead>
          <tr><th>Option</th>${runs.map(({ job, colour, title }) => html`<th key=${job.id}><span class="swatch" style=${{ background: `var(${colour})` }}></span> ${title}</th>`)}</tr>
        </thead>
        <tbody>
          ${rows.map(
            ({ path, values }) => html`
              <tr key=${path}>
                <th scope="row"><code>${path}</code></th>
                ${values.map((value, index) => html`<td key=${index}><code>${shown(value)}</code></td>`)}
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  `;
}
