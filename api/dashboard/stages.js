// The stages of a job with progress and the time that is left.

import { doneOf, duration, isOpen, secondsBetween, TERMINAL } from "./format.js";
import { html } from "./ui.js";

const STAGES = [
  ["prepare", "rows become token sequences"],
  ["reference", "the reference model scores the pairs"],
  ["train", "the policy learns"],
  ["publish", "the model moves into place"],
];

export function Stages({ job, events }) {
  const spans = spansOf(events);
  const begun = ([name]) => spans[name] ?? job.progress[name];
  const last = STAGES.findLastIndex(begun);
  return html`
    <ol class="stages">
      ${STAGES.map(([name, meaning], index) => {
        const stage = { progress: job.progress[name], span: spans[name] };
        const look = !begun([name]) ? "waiting" : complete(stage) ? "done" : "present";
        return html`
          <li class=${look}>
            <span class="name"><strong>${name}</strong> <small>${meaning}</small></span>
            <progress ...${bar(look, stage.progress, job)} aria-label=${name} />
            <small class="count">${stage.progress && doneOf(stage.progress)}</small>
            <small class="time">${look === "waiting" ? absent(job, index < last) : times(job, stage)}</small>
          </li>
        `;
      })}
    </ol>
  `;
}

/** {stage: {startedAt, seconds}} of the newest attempt, from its own events; `seconds` once the stage is complete. */
function spansOf(events) {
  const attempt = Math.max(...events.map((event) => event.attempt ?? 0));
  const spans = {};
  for (const event of events.filter((event) => event.attempt === attempt)) {
    if (event.type === "stage.started") spans[event.stage] = { startedAt: event.created_at };
    if (event.type === "stage.completed") spans[event.stage] = { ...spans[event.stage], seconds: event.data.seconds };
  }
  return spans;
}

const complete = ({ progress, span }) =>
  span?.seconds !== undefined || (progress && progress.done >= progress.total && !isOpen(progress));

function bar(look, progress, job) {
  if (look === "done") return { max: 1, value: 1 };
  if (look === "waiting" || (TERMINAL.has(job.state) && !progress)) return { max: 1, value: 0 };
  return !progress || isOpen(progress) ? {} : { max: progress.total, value: progress.done };
}

function absent(job, passedBy) {
  if (passedBy || job.state === "succeeded") return "not needed";
  return TERMINAL.has(job.state) ? "not reached" : "";
}

function times(job, { progress, span }) {
  const startedAt = span?.startedAt ?? progress.started_at;
  if (complete({ progress, span })) {
    return `took ${duration(span?.seconds ?? secondsBetween(startedAt, progress.updated_at))}`;
  }
  if (TERMINAL.has(job.state)) return `stopped after ${duration(secondsBetween(startedAt, job.finished_at))}`;
  const spent = `${duration(secondsBetween(startedAt))} so far`;
  return progress?.eta_s == null || isOpen(progress) ? spent : `${spent}, about ${duration(progress.eta_s)} left`;
}
