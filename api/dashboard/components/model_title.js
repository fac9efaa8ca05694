// What a model is called on a page.

/** A job's model by the name of the job, with the step of a checkpoint; a name of the project as it is. */
export function modelTitle({ id, name }) {
  const [, job, step, base] = id.match(/^job:([^:@]+)(?:@(\d+))?(:base)?$/) ?? [];
  if (!job) return id;
  return `${name ?? job}${step ? `, step ${step}` : ""}${base ? ", base" : ""}`;
}
