// The queue: what waits, in the order in which it is let go and why, and the pools with those who hold them.

import { Empty, Loading, ProblemNote } from "../components/notes.js";
import { count, jobTitle, Moment, number } from "../format.js";
import { useAnswer, useTitle } from "../hooks.js";
import { html, stylesheet } from "../ui.js";
import { Pools } from "./queue/pools.js";

await stylesheet("./queue.css", import.meta.url);

const REFRESH_EVERY_S = 5;

export default function Queue() {
  useTitle("Queue");
  const queue = useAnswer("/v1/queue", { every: REFRESH_EVERY_S });
  const pools = useAnswer("/v1/pools", { every: REFRESH_EVERY_S });
  const jobs = useAnswer("/v1/queue/jobs", { every: REFRESH_EVERY_S });
  const problem = queue.problem ?? pools.problem ?? jobs.problem;
  return html`
    <div class="head"><h1>Queue</h1></div>
    ${problem && html`<${ProblemNote} problem=${problem} />`}
    ${queue.data && html`<${Cluster} queue=${queue.data} />`}
    <section aria-labelledby="pools">
      <h2 id="pools">Pools</h2>
      ${pools.data ? html`<${Pools} pools=${pools.data.data} />` : pools.loading && html`<${Loading} rows=${3} />`}
    </section>
    <section aria-labelledby="waiting">
      <h2 id="waiting">Your jobs that wait</h2>
      ${jobs.data ? html`<${Waiting} jobs=${jobs.data.data} more=${jobs.data.more} />` : jobs.loading && html`<${Loading} />`}
    </section>
  `;
}

const Cluster = ({ queue }) => html`
  <dl class="facts card">
    <div><dt>Waiting, of all projects</dt><dd class="number">${number(queue.queued)}</dd></div>
    <div><dt>On the cluster</dt><dd class="number">${queue.on_cluster} of at most ${queue.max_running_jobs}</dd></div>
    <div>
      <dt>Cluster seen</dt>
      <dd>${queue.observed_at ? html`<${Moment} at=${queue.observed_at} seconds />` : "never"}</dd>
    </div>
  </dl>
  ${queue.trouble && html`<p class="note warn"><strong>The cluster was not seen.</strong> ${queue.trouble}</p>`}
`;

function Waiting({ jobs, more }) {
  if (jobs.length === 0) return html`<div class="card"><${Empty} title="Nothing of yours waits." /></div>`;
  return html`
    <div class="card flush table-box">
      <table class="queue">
        <thead>
          <tr>
            <th class="number">Place</th><th>Job</th><th>Why it waits</th><th>Starts</th>
            <th class="number">Priority</th><th>Owner</th>
          </tr>
        </thead>
        <tbody>${jobs.map((job) => html`<${Row} key=${job.id} job=${job} />`)}</tbody>
      </table>
    </div>
    ${more > 0 && html`<p class="muted">${count(more, "jobs")} of yours come after these.</p>`}
  `;
}

const Row = ({ job }) => html`
  <tr>
    <td class="number place">${job.waiting?.position ?? "next"}</td>
    <td class="what"><a href="/jobs/${job.id}">${jobTitle(job)}</a></td>
    <td class="why"><code>${job.waiting?.code}</code> ${job.waiting?.message}</td>
    <td class="starts">
      ${job.eta?.start_low && job.eta.start_high
        ? html`<${Moment} at=${job.eta.start_low} /> – <${Moment} at=${job.eta.start_high} />`
        : html`<small>unknown</small>`}
    </td>
    <td class="number priority">${job.spec.priority}</td>
    <td class="owner">${job.owner}</td>
  </tr>
`;
