// The list of jobs, newest first, kept fresh by asking again.

import { json } from "./api.js";
import { doneOf, duration, isOpen, jobTitle, lossText, Moment, State, TERMINAL } from "./format.js";
import { Component, everyWhileVisible, html, ProblemNote } from "./ui.js";

const REFRESH_EVERY_S = 2;
const PAGE = 20;

export class JobList extends Component {
  state = { jobs: null, more: false, problem: null };
  pages = 1;
  abort = new AbortController();

  componentDidMount() {
    everyWhileVisible(REFRESH_EVERY_S, () => this.refresh(), this.abort.signal);
  }

  componentWillUnmount() {
    this.abort.abort();
  }

  /** Reads as many pages as are shown. */
  async refresh() {
    if (this.busy) return;
    this.busy = true;
    try {
      let jobs = [];
      let cursor = null;
      for (let page = 0; page < this.pages; page++) {
        const query = new URLSearchParams({ limit: PAGE, ...(cursor && { cursor }) });
        const answer = await json(`v1/jobs?${query}`, { signal: this.abort.signal });
        jobs = jobs.concat(answer.data);
        cursor = answer.next_cursor;
        if (!cursor) break;
      }
      this.setState({ jobs, more: cursor !== null, problem: null });
    } catch (problem) {
      if (problem.name !== "AbortError") this.setState({ problem });
    } finally {
      this.busy = false;
    }
  }

  older = () => {
    this.pages += 1;
    this.refresh();
  };

  render(_, { jobs, more, problem }) {
    return html`
      <h1>Jobs</h1>
      ${problem && html`<${ProblemNote} problem=${problem} />`}
      ${!jobs && !problem && html`<p class="muted">Loading…</p>`}
      ${jobs?.length === 0 && html`<${NoJobs} />`}
      ${jobs?.length > 0 &&
      html`<ul class="jobs card">${jobs.map((job) => html`<${JobRow} key=${job.id} job=${job} />`)}</ul>`}
      ${more && html`<p class="centre"><button onClick=${this.older}>Show older jobs</button></p>`}
    `;
  }
}

function JobRow({ job }) {
  const progress = job.state === "running" && job.progress[job.stage];
  return html`
    <li>
      <a href="#/jobs/${job.id}">
        <span class="what">
          <strong>${jobTitle(job)}</strong>
          <small>${lossText(job.spec.losses)} on ${job.spec.model.source}</small>
        </span>
        <span class="how">
          <${State} state=${job.state} />
          ${job.deployment?.state === "ready" && html`<span class="state ready">served</span>`}
          <small><${Doing} job=${job} progress=${progress} /></small>
        </span>
        <small class="when"><${Moment} at=${job.created_at} /></small>
        ${progress?.total > 0 &&
        html`<progress max=${progress.total} value=${progress.done} aria-label=${job.stage} />`}
      </a>
    </li>
  `;
}

function Doing({ job, progress }) {
  if (job.state === "failed") return job.error?.code ?? "";
  if (TERMINAL.has(job.state) || !job.stage) return "";
  if (!progress) return job.stage;
  const left = progress.eta_s == null || isOpen(progress) ? "" : `, ${duration(progress.eta_s)} left`;
  return `${job.stage}: ${doneOf(progress)}${left}`;
}

const NoJobs = () => html`
  <div class="card empty">
    <p><strong>No jobs yet.</strong> A job aligns a model with a preference dataset. Send the first one:</p>
    <pre>plumbline submit job.yaml</pre>
    <p>or <code>POST ${location.origin}/v1/jobs</code>: the <a href="docs">API page</a> has examples.</p>
  </div>
`;
