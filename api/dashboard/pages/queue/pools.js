// What the cluster has for each kind of work, and who holds it.

import { count, duration, number, secondsBetween } from "../../format.js";
import { html } from "../../ui.js";

const MEANS = {
  control: "drivers of jobs",
  reference: "scores pairs under the reference",
  policy: "trains",
  serving: "serves models",
};

export const Pools = ({ pools }) => html`
  <div class="pools">${pools.map((pool) => html`<${Pool} key=${pool.pool} pool=${pool} />`)}</div>
`;

function Pool({ pool }) {
  const unit = pool.gpus > 0 ? "gpus" : "cpus";
  const name = unit === "gpus" ? "GPUs" : "CPUs";
  const held = pool.holders.reduce((sum, holder) => sum + holder[unit], 0);
  const types = Object.entries(pool.accelerators).map(([name, gpus]) => `${number(gpus)} × ${name}`);
  return html`
    <article class="card pool">
      <h3>${pool.pool} <small>${MEANS[pool.pool]}</small></h3>
      ${pool.nodes === 0
        ? html`<p class="muted">No node is labelled for it.</p>`
        : html`
            <p class="has">
              ${count(pool.nodes, "nodes")} labelled <code>${pool.labels.join(", ")}</code><br />
              <small>${types.join(", ") || count(pool.gpus, "GPUs")}, ${count(pool.cpus, "CPUs")}</small>
            </p>
          `}
      ${pool.holders.length > 0 &&
      html`
        ${pool[unit] > 0 &&
        html`<progress max=${pool[unit]} value=${Math.min(held, pool[unit])} aria-label="Held of ${pool.pool}"></progress>`}
        <p class="held"><small>${pool[unit] > 0 ? `${number(held)} of ${count(pool[unit], name)}` : count(held, name)} asked for</small></p>
        <ul>
          ${pool.holders.map(
            (holder, index) => html`
              <li key=${holder.job_id ?? index}>
                <span class="name">
                  ${holder.job_id
                    ? html`<a href="/jobs/${holder.job_id}">${holder.name ?? holder.job_id}</a>`
                    : html`<span class="muted">a job of another project</span>`}
                </span>
                <small class="number">${amount(holder)}${until(holder)}</small>
              </li>
            `,
          )}
        </ul>
      `}
      ${pool.nodes > 0 && pool.holders.length === 0 && ["policy", "reference"].includes(pool.pool) &&
      html`<p class="muted">Free.</p>`}
    </article>
  `;
}

const amount = ({ gpus, cpus }) => (gpus ? count(gpus, "GPUs") : count(cpus, "CPUs"));

function until({ until_low: low, until_high: high }) {
  if (!low || !high) return "";
  return `, ${duration((secondsBetween(undefined, low) + secondsBetween(undefined, high)) / 2)} left`;
}
