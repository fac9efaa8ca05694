// Asks for the key.

import { useState } from "preact/hooks";
import { signIn } from "../api.js";
import { ProblemNote } from "../components/notes.js";
import { useAction, useTitle } from "../hooks.js";
import { html } from "../ui.js";

export function SignIn({ refused, onSignedIn }) {
  useTitle("Sign in");
  const [key, setKey] = useState("");
  const [run, busy, problem] = useAction();
  const submit = async (event) => {
    event.preventDefault();
    const who = await run(() => signIn(key.trim()));
    if (who) onSignedIn(who);
  };
  return html`
    <form class="card sign-in" onSubmit=${submit}>
      <p class="brand"><img src="/icon.svg" alt="" width="26" height="26" />Plumbline</p>
      <h1>Sign in with your API key</h1>
      ${refused && !problem && html`<${ProblemNote} problem=${refused} />`}
      ${problem && html`<${ProblemNote} problem=${problem} />`}
      <label>Key <input type="password" required pattern="[!-~]+" title="A key has no spaces" autocomplete="off"
          spellcheck="false" placeholder="pk-…" autofocus value=${key} onInput=${(e) => setKey(e.target.value)} /></label>
      <button class="primary" disabled=${busy}>Sign in</button>
      <p class="muted">The key is not kept in this browser; a session is. <code>plumbline up</code> says where it keeps
        your key.</p>
    </form>
  `;
}
