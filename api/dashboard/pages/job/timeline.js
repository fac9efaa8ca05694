// The stages of a job on one axis of time: what ran beside what, how far each is, and how long it took.

import { doneOf, duration, isOpen, secondsBetween, TERMINAL } from "../../format.js";
import { html } from "../../ui.js";
import { endOf, spansOf } from "./spans.js";

const ROWS = [
  ["queue", "waits for its turn", ""],
  ["prepare", "rows become token sequences", "control"],
  ["reference", "the reference model scores the pairs", "reference"],
  ["train", "the policy learns", "policy"],
  ["evaluate", "what training did to its pairs is measured", "policy"],
  ["publish", "the model moves into place", "control"],
];

/** now: milliseconds, from which what is still open is drawn. */
export function Timeline({ job, events, now }) {
  const spans = spansOf(job, events);
  const all = Object.values(spans).flat();
  const start = Math.min(Date.parse(job.created_at), ...all.map(({ from }) => from));
  const end = Math.max(endOf(job, now), start + 1000, ...all.map(({ to }) => to ?? 0));
  const shown = ROWS.filter(([name]) => name !== "evaluate" || spans.evaluate || job.progress.evaluate);
  const begun = (name) => Boolean(spans[name]?.length || job.progress[name]);
  const last = shown.findLastIndex(([name]) => begun(name));
  return html`
    <ol class="timeline">
      ${shown.map(([name, meaning, pool], index) => {
        const progress = job.progress[name];
        const mine = spans[name] ?? [];
        return html`
          <li key=${name} class=${begun(name) ? "begun" : "waiting"}>
            <span class="name" title=${meaning}><strong>${name}</strong>${pool && html` <small>${pool} pool</small>`}</span>
            <span class="track" role="img" aria-label=${spoken(name, mine, start, end)}>
              ${mine.map((span, at) => html`<${Bar} key=${at} span=${span} start=${start} end=${end}
                kind=${name} open=${span.to === null && at === mine.length - 1} progress=${progress} />`)}
            </span>
            <small class="count number">${progress && doneOf(progress)}</small>
            <small class="time number">${begun(name) ? times(job, mine, progress, now) : absent(job, name, index < last)}</small>
          </li>
        `;
      })}
    </ol>
    <p class="axis number" aria-hidden="true"><small>0</small><small>${duration((end - start) / 2000)}</small><small>${duration((end - start) / 1000)}</small></p>
  `;
}

function Bar({ span, start, end, kind, open, progress }) {
  const part = (time) => `${((100 * (time - start)) / (end - start)).toFixed(3)}%`;
  const style = { left: part(span.from), width: part((span.to ?? end) - span.from + start) };
  const share = open && progress?.total > 0 ? Math.min(1, progress.done / progress.total) : null;
  return html`
    <span class="span ${kind} ${open ? "open" : ""}" style=${style} title=${duration(((span.to ?? end) - span.from) / 1000)}>
      ${share !== null && html`<span class="done" style=${{ width: `${100 * share}%` }}></span>`}
    </span>
  `;
}

function spoken(name, spans, start, end) {
  if (spans.length === 0) return `${name}: not begun`;
  const told = spans.map(
    ({ from, to }) =>
      `from ${duration((from - start) / 1000)} to ${to === null ? "now" : duration(((to ?? end) - start) / 1000)}`,
  );
  return `${name}: ${told.join(", ")} after the start`;
}

function absent(job, name, passedBy) {
  if (passedBy || job.state === "succeeded") return "not needed";
  return TERMINAL.has(job.state) ? "not reached" : "";
}

function times(job, spans, progress, now) {
  const newest = spans.at(-1);
  if (newest && newest.to !== null) return `took ${duration(newest.seconds ?? (newest.to - newest.from) / 1000)}`;
  const from = newest?.from ?? Date.parse(progress.started_at);
  if (progress && progress.done >= progress.total && !isOpen(progress)) {
    return `took ${duration((Date.parse(progress.updated_at) - from) / 1000)}`;
  }
  if (TERMINAL.has(job.state)) return `stopped after ${duration((endOf(job, now) - from) / 1000)}`;
  const spent = `${duration((now - from) / 1000)} so far`;
  if (progress?.eta_s == null || isOpen(progress)) return spent;
  return `${spent}, about ${duration(progress.eta_s - secondsBetween(progress.updated_at))} left`;
}
