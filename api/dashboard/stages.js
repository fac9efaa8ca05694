// The stages of a job with progress and the time that is left.

import { doneOf, duration, secondsBetween, TERMINAL } from "./format.js";
import { html } from "./ui.js";

const STAGES = [
  ["prepare", "rows become token sequences"],
  ["reference", "the reference model scores the pairs"],
  ["train", "the policy learns"],
  ["publish", "the model moves into place"],
];

export function Stages({ job }) {
  const last = STAGES.findLastIndex(([name]) => job.progress[name]);
  return html`
    <ol class="stages">
      ${STAGES.map(([name, meaning], index) => {
        const progress = job.progress[name];
        return html`
          <li class=${progress ? (complete(progress) ? "done" : "present") : "waiting"}>
            <span class="name"><strong>${name}</strong> <small>${meaning}</small></span>
            <progress max=${progress?.total || 1} value=${share(progress)} aria-label=${name} />
            <small class="count">${progress && doneOf(progress)}</small>
            <small class="time">${times(job, progress, index < last)}</small>
          </li>
        `;
      })}
    </ol>
  `;
}

const complete = (progress) => progress.done >= progress.total;

// a stage with nothing to do (every pair was scored before) is complete at 0 of 0
const share = (progress) => (!progress ? 0 : progress.total === 0 ? 1 : progress.done);

function times(job, progress, passedBy) {
  if (!progress) {
    if (passedBy || job.state === "succeeded") return "not needed";
    return TERMINAL.has(job.state) ? "not reached" : "";
  }
  if (complete(progress)) return `took ${duration(secondsBetween(progress.started_at, progress.updated_at))}`;
  if (TERMINAL.has(job.state)) return `stopped after ${duration(secondsBetween(progress.started_at, progress.updated_at))}`;
  const spent = duration(secondsBetween(progress.started_at));
  return progress.eta_s == null ? `${spent} so far` : `${spent} so far, about ${duration(progress.eta_s)} left`;
}
