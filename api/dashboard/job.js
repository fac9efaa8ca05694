// The page of one job: state, stages, curves, event log, serving and the comparison. Live over one event stream.

import { json, Problem } from "./api.js";
import { Curves } from "./charts.js";
import { Compare } from "./compare.js";
import { EventLog } from "./events.js";
import { duration, jobTitle, Moment, secondsBetween, State, TERMINAL } from "./format.js";
import { Serving } from "./serving.js";
import { SpecSummary } from "./spec.js";
import { follow, sleep } from "./sse.js";
import { Stages } from "./stages.js";
import { Component, everyWhileVisible, html, ProblemNote } from "./ui.js";
import { Waiting } from "./waiting.js";

// The stream of a finished job ends; its deployment may still change, by somebody else or after a removal.
const LOOK_AGAIN_MS = 10_000;
const REMOVING_MS = 2_000;

export class JobPage extends Component {
  state = { job: null, events: [], connected: true, problem: null, actionProblem: null };
  abort = new AbortController();
  rest = new AbortController();

  componentDidMount() {
    this.live().catch((problem) => this.setState({ problem }));
    // times that count up
    everyWhileVisible(1, () => this.setState({}), this.abort.signal);
  }

  componentWillUnmount() {
    this.abort.abort();
    this.rest.abort();
  }

  async live() {
    const { signal } = this.abort;
    let lastId;
    while (!signal.aborted) {
      lastId = await follow(`v1/jobs/${this.props.id}/events`, {
        lastId,
        signal,
        onFrame: this.take,
        onConnection: (connected) => this.setState({ connected }),
      });
      this.rest = new AbortController();
      if (signal.aborted) return;
      await sleep(this.state.job?.deployment?.state === "removing" ? REMOVING_MS : LOOK_AGAIN_MS, this.rest.signal);
    }
  }

  take = ({ event, data }) => {
    if (event === "job") {
      document.title = `${jobTitle(data)}: ${data.state} – Plumbline`;
      this.setState({ job: data });
    } else if (event === "event") {
      this.setState(({ events }) => ({ events: [...events, data] }));
    }
  };

  /** Sends a request that changes the job, then looks at the job again without waiting. */
  act = async (method, path) => {
    this.setState({ actionProblem: null });
    try {
      await json(`v1/jobs/${this.props.id}/${path}`, { method });
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      this.setState({ actionProblem: problem });
    }
    this.rest.abort();
  };

  cancel = () => {
    if (confirm("Cancel this job? What it has learned so far is lost.")) this.act("POST", "cancel");
  };

  render({ id }, { job, events, connected, problem, actionProblem }) {
    if (problem) return html`<p><a href="#/">← All jobs</a></p><${ProblemNote} problem=${problem} />`;
    const wait = connected ? "Loading…" : "The API does not answer; trying again…";
    if (!job) return html`<p class="muted">${wait}</p>`;
    const cancellable = !TERMINAL.has(job.state) && job.state !== "cancelling";
    return html`
      <p class="back"><a href="#/">← All jobs</a></p>
      <div class="title">
        <h1>${jobTitle(job)}</h1>
        <${State} state=${job.state} />
        ${!connected && html`<span class="state lost" role="status">reconnecting…</span>`}
        ${cancellable && html`<button class="danger" onClick=${this.cancel}>Cancel job</button>`}
      </div>
      <p class="muted"><code>${id}</code> · created <${Moment} at=${job.created_at} />${lasting(job)}</p>
      ${actionProblem && html`<${ProblemNote} problem=${actionProblem} />`}
      ${job.error && html`<${FailureNote} job=${job} />`}
      ${!TERMINAL.has(job.state) && html`<${Waiting} id=${id} queued=${job.state === "queued"} />`}

      ${job.state === "succeeded" &&
      html`<section class="card">
        <h2>Side by side</h2>
        <${Serving} deployment=${job.deployment} act=${this.act} />
        <${Compare} jobId=${id} />
      </section>`}
      <section class="card"><h2>Stages</h2><${Stages} job=${job} events=${events} /></section>
      ${(job.progress.train || !TERMINAL.has(job.state)) &&
      html`<section class="card"><h2>Curves</h2><${Curves} id=${id} /></section>`}
      <section class="card"><h2>Request</h2><${SpecSummary} spec=${job.spec} /></section>
      <section class="card"><h2>Events</h2><${EventLog} events=${events} /></section>
    `;
  }
}

function lasting(job) {
  if (!job.started_at) return "";
  const spent = duration(secondsBetween(job.started_at, job.finished_at));
  const again = job.attempts > 1 ? `, ${job.attempts} attempts` : "";
  return job.finished_at ? ` · took ${spent}${again}` : ` · running for ${spent}${again}`;
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
      <p class="muted">${WHO_ACTS[error.fault]}</p>
      ${error.log_tail?.length > 0 &&
      html`<details><summary>Last lines of the log</summary><pre>${error.log_tail.join("\n")}</pre></details>`}
    </div>
  `;
}
