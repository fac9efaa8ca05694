// What can be done with a job, by its state; what cannot be undone is asked about first.

import { useLocation } from "preact-iso/router";
import { useState } from "preact/hooks";
import { json } from "../../api.js";
import { Dialog } from "../../components/dialog.js";
import { ProblemNote } from "../../components/notes.js";
import { useWho } from "../../components/who.js";
import { jobTitle, TERMINAL } from "../../format.js";
import { useAction } from "../../hooks.js";
import { html } from "../../ui.js";

const PAUSABLE = new Set(["queued", "starting", "running"]);
const RETRYABLE = new Set(["failed", "cancelled"]);

/** onDone: after a request that changed the job. */
export function Actions({ job, onDone }) {
  const { route } = useLocation();
  const { may } = useWho();
  const [asked, setAsked] = useState(null);
  const [run, busy, problem, forget] = useAction();
  if (!may("member")) return null;
  const path = `/v1/jobs/${job.id}`;
  const close = () => (forget(), setAsked(null));
  const act = async (method, action, then = onDone) => {
    const done = await run(() => json(action ? `${path}/${action}` : path, { method }));
    if (done) (setAsked(null), then(done));
  };
  const cancellable = !TERMINAL.has(job.state) && job.state !== "cancelling";
  return html`
    <div class="actions">
      ${PAUSABLE.has(job.state) && html`<button disabled=${busy} onClick=${() => act("POST", "pause")}>Pause</button>`}
      ${job.state === "paused" && html`<button class="primary" disabled=${busy} onClick=${() => act("POST", "resume")}>Resume</button>`}
      ${RETRYABLE.has(job.state) && html`<button disabled=${busy} onClick=${() => act("POST", "retry")}>Retry</button>`}
      <a class="button" href="/new?clone=${job.id}">Clone</a>
      ${cancellable && html`<button class="danger" onClick=${() => setAsked("cancel")}>Cancel job</button>`}
      ${TERMINAL.has(job.state) && html`<button class="danger" onClick=${() => setAsked("delete")}>Delete</button>`}
    </div>
    ${problem && !asked && html`<div class="head-note"><${ProblemNote} problem=${problem} /></div>`}
    ${asked === "cancel" &&
    html`<${Dialog} title="Cancel this job?" action="Cancel the job" danger busy=${busy} problem=${problem} onClose=${close}
        onSubmit=${() => act("POST", "cancel")}>
      <p>It stops, and leaves the cluster. Its last checkpoint stays: “Retry” would go on from there.</p>
    <//>`}
    ${asked === "delete" &&
    html`<${Dialog} title="Delete this job?" action="Delete it" danger busy=${busy} problem=${problem} onClose=${close}
        onSubmit=${() => act("DELETE", "", () => route("/jobs"))}>
      <p><strong>${jobTitle(job)}</strong> goes with its model, checkpoints, events and metrics. This cannot be undone.</p>
    <//>`}
  `;
}
