// The rows of a list of jobs: those near the window, however many there are.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { Sparkline } from "../../components/sparkline.js";
import { doneOf, duration, isOpen, jobTitle, lossText, Moment, number, secondsBetween, State, TERMINAL } from "../../format.js";
import { Component, html } from "../../ui.js";

const NEAR = "1200px 0px"; // around the window
const ROW_PX = 51; // on a wide window; a guess on a narrow one, where rows differ
const ROWS_A_FRAME = 10; // so that a page of rows holds up no scrolling

/** Whether the element of `ref` is near the window, by `onChange(near)` and as the result; at first `start`. */
function useNear(ref, start, onChange) {
  const [near, setNear] = useState(start);
  // Ends with the element: what useEffect ends later could be told that an element is out of sight because it is gone.
  useLayoutEffect(() => {
    const seen = (entries) => {
      const { isIntersecting } = entries.at(-1); // a busy page is told of several changes at once, the last one holds
      setNear(isIntersecting);
      onChange(isIntersecting);
    };
    const observer = new IntersectionObserver(seen, { rootMargin: NEAR });
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  return near;
}

/**
 * pages: of useScrolledPages, with its more, onNear and onHeight. chosen: a Set of IDs; onChoose(id) adds or removes one.
 * own: the project of whoever looks; jobs of others have no page for them.
 */
export function JobTable({ pages, more, onNear, onHeight, own, chosen, onChoose }) {
  const end = useRef(null);
  const atEnd = useNear(end, false, () => {});
  useEffect(() => {
    if (atEnd) more();
  }, [atEnd, pages]);
  const num = pages.reduce((sum, { data }) => sum + data.length, 0);
  return html`
    <div class="card flush table-box">
      <table class="jobs">
        <thead>
          <tr>
            <th class="pick"><span class="visually-hidden">Compare</span></th>
            <th>Job</th>
            <th>State</th>
            <th>Stage, progress</th>
            <th>Loss</th>
            <th>Ends</th>
            <th>Owner</th>
            <th>Project</th>
            <th class="number">Created</th>
          </tr>
        </thead>
        ${pages.map(
          (page, index) => html`<${Page} key=${index} ...${{ page, index, onNear, onHeight, own, chosen, onChoose }} />`,
        )}
      </table>
    </div>
    <p class="muted list-end" ref=${end} role="status">
      ${num.toLocaleString("en")} ${num === 1 ? "job" : "jobs"}${pages.at(-1).next ? " so far; more come as you scroll" : ""}
    </p>
  `;
}

/**
 * The rows of a page that is near the window, some more at each frame; what is not drawn is one row of its height, also
 * when one comes back to the list.
 */
function Page({ page: { data: jobs, far, height }, index, onNear, onHeight, own, chosen, onChoose }) {
  const body = useRef(null);
  const [drawn, setDrawn] = useState(ROWS_A_FRAME);
  const whole = useRef(height ?? ROW_PX * jobs.length);
  const near = useNear(body, !far, (isNear) => {
    if (!isNear) {
      whole.current = body.current.offsetHeight;
      setDrawn(ROWS_A_FRAME);
    }
    onNear(index, isNear);
  });
  useLayoutEffect(() => () => onHeight(index, body.current.offsetHeight), []);
  useEffect(() => {
    if (!near || drawn >= jobs.length) return undefined;
    const frame = requestAnimationFrame(() => setDrawn(drawn + ROWS_A_FRAME));
    return () => cancelAnimationFrame(frame);
  }, [near, drawn, jobs.length]);
  const rows = near ? jobs.slice(0, drawn) : [];
  const rest = whole.current * (1 - rows.length / jobs.length);
  return html`
    <tbody ref=${body}>
      ${rows.map((job) => html`<${Row} key=${job.id} job=${job} own=${own} chosen=${chosen.has(job.id)} onChoose=${onChoose} />`)}
      ${rest > 0 && html`<tr key="rest" class="far" aria-hidden="true"><td style=${{ height: `${rest}px` }}></td></tr>`}
    </tbody>
  `;
}

/** Compared again only if its job has changed: a list is drawn anew whenever a page of it has come. */
class Row extends Component {
  shouldComponentUpdate(next) {
    return next.job !== this.props.job || next.chosen !== this.props.chosen || next.own !== this.props.own;
  }

  render({ job, own, chosen, onChoose }) {
    const mine = job.project_id === own;
    const loss = job.loss_points.at(-1)?.[1];
    return html`
      <tr>
        <td class="pick">
          ${mine && html`<input type="checkbox" checked=${chosen} onChange=${() => onChoose(job.id)} aria-label="Compare ${jobTitle(job)}" />`}
        </td>
        <td class="what">
          ${mine ? html`<a href="/jobs/${job.id}">${jobTitle(job)}</a>` : html`<strong title="Its page is for its own project">${jobTitle(job)}</strong>`}
          <small>${lossText(job.spec.losses)} on ${job.spec.model.source}</small>
        </td>
        <td class="states">
          <${State} state=${job.state} />
          ${job.deployment?.state === "ready" && html`${" "}<span class="state ready">served</span>`}
        </td>
        <td class="progress"><${Progress} job=${job} /></td>
        <td class="loss">
          ${loss !== undefined &&
          html`<span class="loss-cell"><${Sparkline} points=${job.loss_points} /><span class="number">${number(loss)}</span></span>`}
        </td>
        <td class="ends"><${Ends} job=${job} /></td>
        <td class="owner">
          ${job.owner && html`<a href="/jobs?owner=${encodeURIComponent(job.owner)}">${job.owner}</a>`}
        </td>
        <td class="project">${job.project_id}</td>
        <td class="number created"><${Moment} at=${job.created_at} /></td>
      </tr>
    `;
  }
}

function Progress({ job }) {
  if (job.state === "failed") return html`<small>${job.error?.code}</small>`;
  if (job.state === "queued" && job.waiting) {
    const place = job.waiting.position ? `${job.waiting.position}. ` : "";
    return html`<small class="why" title=${job.waiting.message}>${place}${job.waiting.message}</small>`;
  }
  const progress = job.stage && job.progress[job.stage];
  if (TERMINAL.has(job.state) || !progress) return html`<small>${TERMINAL.has(job.state) ? "" : job.stage}</small>`;
  const bar = isOpen(progress) || progress.total === 0 ? {} : { max: progress.total, value: progress.done };
  return html`<progress ...${bar} aria-label=${job.stage}></progress><small>${job.stage}: ${doneOf(progress)}</small>`;
}

/** When it ended or is expected to, and how long it took. */
function Ends({ job }) {
  if (job.finished_at) {
    if (!job.started_at) return html`<small>not started</small>`;
    return html`<small>took ${duration(secondsBetween(job.started_at, job.finished_at))}</small>`;
  }
  const { finish_low: low, finish_high: high } = job.eta ?? {};
  if (low && high) {
    const middle = (secondsBetween(undefined, low) + secondsBetween(undefined, high)) / 2;
    return html`<span class="number">in ${duration(middle)}</span>`;
  }
  const left = job.state === "running" && job.stage ? job.progress[job.stage]?.eta_s : null;
  return left == null ? html`<small>–</small>` : html`<small>${job.stage} ${duration(left)} left</small>`;
}
