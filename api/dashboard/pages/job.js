// The page of one job: state and what can be done, stages, alarms, curves, models, request and events.

import { Loading, ProblemNote } from "../components/notes.js";
import { duration, jobTitle, Moment, secondsBetween, State, TERMINAL } from "../format.js";
import { useNow, useTitle } from "../hooks.js";
import { html, stylesheet } from "../ui.js";
import { Actions } from "./job/actions.js";
import { Alarms } from "./job/alarms.js";
import { Checkpoints } from "./job/checkpoints.js";
import { Curves } from "./job/curves.js";
import { EventLog } from "./job/events.js";
import { useLiveJob } from "./job/live.js";
import { Log } from "./job/log.js";
import { Serving } from "./job/serving.js";
import { Compare } from "./job/side_by_side.js";
import { SpecSummary } from "./job/spec.js";
import { Timeline } from "./job/timeline.js";
import { Waiting } from "./job/waiting.js";

await stylesheet("./job.css", import.meta.url);

export default ({ id }) => html`<${JobPage} key=${id} id=${id} />`;

function JobPage({ id }) {
  const { job, events, connected, problem, again } = useLiveJob(id);
  const now = useNow(1);
  useTitle(job ? `${jobTitle(job)}: ${job.state}` : "Job");
  const back = html`<p class="back"><a href="/jobs">← All jobs</a></p>`;
  if (problem) return html`${back}<h1 class="visually-hidden">Job</h1><${ProblemNote} problem=${problem} />`;
  if (!job) return html`${back}<h1 class="visually-hidden">Job</h1><${Loading} rows=${8} label="Loading the job…" />`;
  const ended = TERMINAL.has(job.state);
  return html`
    ${back}
    <div class="head">
      <h1>${jobTitle(job)}</h1>
      <${State} state=${job.state} />
      ${!connected && html`<span class="state lost" role="status">reconnecting…</span>`}
      <${Actions} job=${job} onDone=${again} />
    </div>
    <p class="muted about"><${About} job=${job} now=${now} /></p>
    ${job.error && html`<${FailureNote} job=${job} />`}
    ${!ended && html`<${Waiting} id=${id} queued=${job.state === "queued"} />`}
    <${Alarms} events=${events} />
    <section class="card"><h2>Stages</h2><${Timeline} job=${job} events=${events} now=${now} /></section>
    ${(job.progress.train || !ended) && html`<section class="card"><h2>Curves</h2><${Curves} id=${id} attempt=${job.attempts} /></section>`}
    ${job.state === "succeeded" &&
    html`<section class="card">
      <h2>Side by side</h2>
      <${Serving} job=${job} onDone=${again} />
      <${Compare} jobId=${id} />
    </section>`}
    ${ended &&
    html`<section class="card">
      <h2>Evaluation</h2>
      <p>
        ${job.state === "succeeded" && html`<a href=${`/evaluations?job=${id}`}>Evaluations of the model</a>, <a href=${`/v1/jobs/${id}/model-card`} target="_blank">its model card</a>, and `}
        <a href=${`/v1/jobs/${id}/report`} target="_blank">the job's report</a>
      </p>
    </section>`}
    ${job.progress.evaluate &&
    html`<section class="card">
      <h2>Pairs</h2>
      <p><a href="/jobs/${id}/pairs">What did training move?</a> Its pairs, before and after, token by token.</p>
    </section>`}
    <${Checkpoints} job=${job} events=${events} />
    <section class="card"><h2>Request</h2><${SpecSummary} spec=${job.spec} /></section>
    <section class="card"><h2>Events</h2><${EventLog} events=${events} /></section>
    <section class="card"><h2>Log</h2><${Log} job=${job} /></section>
  `;
}

function About({ job, now }) {
  const parts = [html`<code>${job.id}</code>`, html`created <${Moment} at=${job.created_at} />`];
  if (job.owner) parts.push(`by ${job.owner}`);
  if (job.started_at) {
    const spent = duration(secondsBetween(job.started_at, job.finished_at ?? new Date(now).toISOString()));
    parts.push(job.finished_at ? `took ${spent}` : `running for ${spent}`);
  }
  if (job.attempts > 1) parts.push(`${job.attempts} attempts`);
  if (job.gpu_hours >= 0.005) parts.push(`${job.gpu_hours.toFixed(2)} GPU-hours`);
  if (job.cloned_from) parts.push(html`cloned from <a href="/jobs/${job.cloned_from}">${job.cloned_from}</a>`);
  if (job.sweep_id) parts.push(html`<a href="/compare?sweep=${job.sweep_id}">of a sweep</a>`);
  return parts.map((part, index) => html`<span key=${index}>${index > 0 && " · "}${part}</span>`);
}

const WHO_ACTS = {
  user: "A changed request would work: correct it and submit the job again.",
  system: "The failure is on the service's side, and trying again did not help.",
};

function FailureNote({ job: { error } }) {
  return html`
    <div class="note bad" role="alert">
      <p><strong>Failed${error.stage ? ` in stage ${error.stage}` : ""}</strong> <code>${error.code}</code></p>
      <p>${error.message}</p>
      <p>${WHO_ACTS[error.fault]}</p>
      ${error.log_tail?.length > 0 &&
      html`<details><summary>Last lines of the log</summary><pre tabindex="0">${error.log_tail.join("\n")}</pre></details>`}
    </div>
  `;
}
