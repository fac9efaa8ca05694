// When each stage of a job ran, from its events. Times are milliseconds since 1970.

const LEAVES_QUEUE = new Set(["job.starting", "job.paused", "job.cancelled", "job.failed"]);

/** When the job ended; `now` while it has not. */
export const endOf = (job, now) => (job.finished_at ? Date.parse(job.finished_at) : now);

/**
 * {stage: [{from, to, seconds?, attempt?}]}, of all attempts, in order; `queue` is the time in the queue. `to` is null
 * for what goes on, and the end of its attempt for what was cut off.
 */
export function spansOf(job, events) {
  const spans = {};
  const last = (name) => spans[name]?.at(-1);
  const cutOff = (time) => {
    for (const [name, list] of Object.entries(spans)) {
      if (name !== "queue" && list.at(-1).to === null) list.at(-1).to = time;
    }
  };
  for (const { type, stage, attempt, data, created_at } of events) {
    const time = Date.parse(created_at);
    if (type === "job.queued") {
      cutOff(time);
      if (last("queue")?.to !== null) (spans.queue ??= []).push({ from: time, to: null });
    } else if (LEAVES_QUEUE.has(type) && last("queue")?.to === null) {
      last("queue").to = time;
    }
    if (["job.paused", "job.failed", "job.cancelled", "job.succeeded"].includes(type)) cutOff(time);
    if (type === "stage.started") (spans[stage] ??= []).push({ from: time, to: null, attempt });
    if (type === "stage.completed" && last(stage)?.to === null) Object.assign(last(stage), { to: time, seconds: data.seconds });
  }
  // Progress alone tells of a stage whose events are still to come, or were removed by retention.
  for (const [name, { done, total, started_at, updated_at }] of Object.entries(job.progress)) {
    const complete = total > 0 ? done >= total : done === 0;
    spans[name] ??= [{ from: Date.parse(started_at), to: complete ? Date.parse(updated_at) : null }];
  }
  if (job.finished_at) cutOff(Date.parse(job.finished_at));
  return spans;
}
