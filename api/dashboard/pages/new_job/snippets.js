// The same job as curl, Python and YAML, to be copied.

import { useRef, useState } from "preact/hooks";
import { html } from "../../ui.js";

const FORMS = [
  ["curl", "curl"],
  ["python", "Python"],
  ["yaml", "YAML"],
];

/** snippets: of the API. */
export function Snippets({ snippets }) {
  const [form, setForm] = useState("curl");
  const [copied, setCopied] = useState(null);
  const tabs = useRef({});
  const copy = async () => {
    await navigator.clipboard.writeText(snippets[form]);
    setCopied(form);
  };
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = FORMS.findIndex(([name]) => name === form);
    const [next] = FORMS[(at + step + FORMS.length) % FORMS.length];
    setForm(next);
    tabs.current[next].focus();
  };
  return html`
    <div class="snippets">
      <div class="bar">
        <div role="tablist" aria-label="The same job as" class="actions" onKeyDown=${move}>
          ${FORMS.map(
            ([name, title]) => html`
              <button key=${name} type="button" role="tab" id="tab-${name}" aria-selected=${form === name} aria-controls="snippet"
                tabindex=${form === name ? 0 : -1} ref=${(tab) => (tabs.current[name] = tab)} onClick=${() => setForm(name)}>as ${title}</button>
            `,
          )}
        </div>
        ${navigator.clipboard &&
        html`<button type="button" class="quiet push" onClick=${copy}>${copied === form ? "Copied" : "Copy"}</button>`}
      </div>
      <pre role="tabpanel" id="snippet" aria-labelledby="tab-${form}" tabindex="0">${snippets[form]}</pre>
      <p class="help">${form === "yaml" ? html`For <code>plumbline submit job.yaml</code>. ` : ""}Set <code>PLUMBLINE_URL=${location.origin}</code> and <code>PLUMBLINE_API_KEY</code>.</p>
    </div>
  `;
}
