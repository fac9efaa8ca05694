// Whether base and aligned model are up on vLLM, and the buttons that put them there and take them away.

import { json } from "../../api.js";
import { ProblemNote } from "../../components/notes.js";
import { useWho } from "../../components/who.js";
import { useAction } from "../../hooks.js";
import { html } from "../../ui.js";

const SAYS = {
  none: "The models are not being served.",
  deploying: "Both models are starting; this takes a minute or so.",
  ready: "Base and aligned model are being served.",
  sleeping: "Nobody asked for long, so the models sleep: the next question wakes them.",
  failed: "Serving failed.",
  removing: "The models are being taken down.",
};

// The button that starts the models, in the states that have one.
const STARTS = { none: "Serve both models", failed: "Try again", sleeping: "Wake them" };

/** onDone: after a request that changed the deployment. */
export function Serving({ job, onDone }) {
  const { may } = useWho();
  const [run, busy, problem] = useAction();
  const state = job.deployment?.state ?? "none";
  const act = (method) => run(() => json(`/v1/jobs/${job.id}/deployment`, { method })).then(onDone);
  return html`
    <div class="serving">
      <span class="state ${state}">${state === "none" ? "not served" : state}</span>
      <span>${SAYS[state]}${job.deployment?.message ? ` ${job.deployment.message}` : ""}</span>
      ${may("member") && state in STARTS &&
      html`<button class="primary" disabled=${busy} onClick=${() => act("POST")}>${STARTS[state]}</button>`}
      ${may("member") && ["deploying", "ready", "sleeping"].includes(state) &&
      html`<button disabled=${busy} onClick=${() => act("DELETE")}>Stop serving</button>`}
    </div>
    ${problem && html`<${ProblemNote} problem=${problem} />`}
  `;
}
