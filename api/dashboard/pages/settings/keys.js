// Keys of the project: made, shown once, revoked.

import { useState } from "preact/hooks";
import { json } from "../../api.js";
import { Dialog } from "../../components/dialog.js";
import { More, useList } from "../../components/more.js";
import { Empty, Loading, ProblemNote } from "../../components/notes.js";
import { useWho } from "../../components/who.js";
import { Moment } from "../../format.js";
import { useAction } from "../../hooks.js";
import { html } from "../../ui.js";

const ROLES = ["viewer", "member", "admin", "operator"];

export function Keys({ project }) {
  const of = `?project=${encodeURIComponent(project)}`;
  const { rows, problem, loading, refresh, rest } = useList(`/v1/keys${of}`);
  const [asked, setAsked] = useState(null); // "new", {made} or {revoke}
  const [run, busy, failed, forget] = useAction();
  const close = () => (forget(), setAsked(null));
  const make = async (form) => {
    const until = form.get("expires_at");
    const body = {
      name: form.get("name").trim(),
      role: form.get("role"),
      user: form.get("user").trim() || null,
      expires_at: until ? new Date(until).toISOString() : null,
    };
    const made = await run(() => json(`/v1/keys${of}`, { method: "POST", body }));
    if (made) (setAsked({ made }), refresh());
  };
  const revoke = async () => {
    const done = await run(() => json(`/v1/keys/${asked.revoke.id}${of}`, { method: "DELETE" }));
    if (done) (close(), refresh());
  };
  const active = rows?.filter(({ revoked_at }) => !revoked_at) ?? [];
  const revoked = rows?.filter(({ revoked_at }) => revoked_at) ?? [];
  return html`
    ${problem && html`<${ProblemNote} problem=${problem} />`}
    <div class="bar"><button class="primary" onClick=${() => setAsked("new")}>New key</button></div>
    ${!rows && loading && html`<${Loading} />`}
    ${rows && active.length === 0 && html`<div class="card"><${Empty} title="No keys." /></div>`}
    ${active.length > 0 && html`<${KeyTable} keys=${active} onRevoke=${(key) => setAsked({ revoke: key })} />`}
    ${revoked.length > 0 && html`<details><summary>${revoked.length} revoked</summary><${KeyTable} keys=${revoked} /></details>`}
    <${More} rest=${rest} />
    ${asked === "new" && html`<${NewKey} busy=${busy} problem=${failed} onClose=${close} onSubmit=${make} />`}
    ${asked?.made && html`<${MadeKey} made=${asked.made} onClose=${close} />`}
    ${asked?.revoke &&
    html`<${Dialog} title="Revoke this key?" action="Revoke it" danger busy=${busy} problem=${failed} onClose=${close} onSubmit=${revoke}>
      <p><strong>${asked.revoke.name || asked.revoke.id}</strong> is refused from the next request on, and so are the sessions
        that were started with it. This cannot be undone.</p>
    <//>`}
  `;
}

const KeyTable = ({ keys, onRevoke }) => html`
  <div class="card flush table-box" tabindex="0" role="region" aria-label="Keys"><table class="keys">
    <thead><tr><th>Name</th><th>Key</th><th>User</th><th>Role</th><th>Last used</th><th>Expires</th><th><span class="visually-hidden">Revoke</span></th></tr></thead>
    <tbody>
      ${keys.map(
        (key) => html`
          <tr key=${key.id}>
            <td>${key.name || html`<span class="muted">without a name</span>`}</td>
            <td><code>${key.prefix ?? "pk-"}…</code></td>
            <td>${key.user ?? "–"}</td>
            <td>${key.role}</td>
            <td>${key.last_used_at ? html`<${Moment} at=${key.last_used_at} />` : "never"}</td>
            <td>${key.expires_at ? html`<${Moment} at=${key.expires_at} />` : "never"}</td>
            <td class="number">${onRevoke && html`<button class="danger quiet" aria-label="Revoke ${key.name || key.id}" onClick=${() => onRevoke(key)}>Revoke</button>`}</td>
          </tr>
        `,
      )}
    </tbody>
  </table></div>
`;

function NewKey({ busy, problem, onClose, onSubmit }) {
  const { may } = useWho();
  return html`
    <${Dialog} title="New key" action="Make the key" busy=${busy} problem=${problem} onClose=${onClose} onSubmit=${onSubmit}>
      <label>What it is for <input name="name" required maxlength="200" autocomplete="off" placeholder="CI of the chat team" /></label>
      <label>Role <select name="role">${ROLES.filter(may).map((role) => html`<option key=${role} selected=${role === "member"}>${role}</option>`)}</select></label>
      <label>User, a member of the project; empty: yours <input name="user" maxlength="200" autocomplete="off" /></label>
      <label>Expires; empty: never <input name="expires_at" type="datetime-local" /></label>
    <//>
  `;
}

function MadeKey({ made, onClose }) {
  const [copied, setCopied] = useState(false);
  const copy = () => navigator.clipboard.writeText(made.key).then(() => setCopied(true));
  return html`
    <${Dialog} title="The key, this once" onClose=${onClose}>
      <p>Take it now: only its digest is kept, and it cannot be shown again.</p>
      <label>Key <input class="made-key" readonly value=${made.key} onFocus=${(event) => event.target.select()} /></label>
      ${navigator.clipboard && html`<button type="button" onClick=${copy}>${copied ? "Copied" : "Copy"}</button>`}
    <//>
  `;
}
