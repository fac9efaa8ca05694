// Whether base and aligned model are on vLLM, and the buttons that put them there and take them away.

import { html } from "./ui.js";

const SAYS = {
  none: "The models are not being served.",
  deploying: "Both models are starting; this takes a minute or so.",
  ready: "Base and aligned model are being served.",
  failed: "Serving failed.",
  removing: "The models are being taken down.",
};

export function Serving({ deployment, act }) {
  const state = deployment?.state ?? "none";
  const startable = state === "none" || state === "failed";
  return html`
    <div class="serving">
      <span class="state ${state}">${state === "none" ? "not served" : state}</span>
      <span>${SAYS[state]}${deployment?.message ? ` ${deployment.message}` : ""}</span>
      ${startable &&
      html`<button class="primary" onClick=${() => act("POST", "deployment")}>
        ${state === "failed" ? "Try again" : "Serve both models"}
      </button>`}
      ${(state === "deploying" || state === "ready") &&
      html`<button onClick=${() => act("DELETE", "deployment")}>Stop serving</button>`}
    </div>
  `;
}
