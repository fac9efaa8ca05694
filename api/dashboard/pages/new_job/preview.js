// The data report in place: what the file that is chosen is like, before there is a job on it.

import { useEffect, useState } from "preact/hooks";
import { json, Problem } from "../../api.js";
import { DataReport, Samples } from "../../components/data_report.js";
import { Loading, ProblemNote } from "../../components/notes.js";
import { html } from "../../ui.js";

const SETTLED_MS = 900; // a look costs seconds of a processor: not at every key

/** spec: of the draft; what of it decides how rows are read is looked at anew when it changes. */
export function Preview({ spec }) {
  const asked = spec.data?.train && JSON.stringify({ data: spec.data, model: spec.model, losses: spec.losses });
  const [seen, setSeen] = useState({ preview: null, problem: null, busy: false });
  useEffect(() => {
    if (!asked) {
      setSeen({ preview: null, problem: null, busy: false });
      return undefined;
    }
    const abort = new AbortController();
    setSeen((before) => ({ ...before, busy: true }));
    const timer = setTimeout(async () => {
      try {
        const preview = await look(JSON.parse(asked), abort.signal);
        setSeen({ preview, problem: null, busy: false });
      } catch (problem) {
        if (problem.name === "AbortError") return;
        if (!(problem instanceof Problem)) throw problem;
        setSeen({ preview: null, problem, busy: false });
      }
    }, SETTLED_MS);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [asked]);
  const { preview, problem, busy } = seen;
  if (!asked) return null;
  return html`
    <section class="preview" aria-label="Data report" aria-busy=${busy}>
      ${busy && !preview && html`<${Loading} rows=${4} label="Reading the file…" />`}
      ${busy && preview && html`<p class="muted" role="status">Reading the file again…</p>`}
      ${problem && !busy && html`<${ProblemNote} problem=${problem} />`}
      ${preview &&
      html`
        ${preview.withoutModel && html`<p class="note">${preview.withoutModel}</p>`}
        <${DataReport} report=${preview.report} complete=${preview.complete} />
        ${preview.samples.length > 0 &&
        html`
          <h3>As the model will see it</h3>
          <${Samples} samples=${preview.samples} unit=${preview.report.unit} />
        `}
      `}
    </section>
  `;
}

/** With the model's tokenizer where it is at hand; else in characters, saying why. */
async function look(asked, signal) {
  const ask = (body) => json("/v1/data-previews", { method: "POST", body, signal });
  const { model, ...rest } = asked;
  const source = typeof model === "object" ? model.source : model;
  if (!source) return { ...(await ask(rest)), withoutModel: "Choose a model to see its tokens: these are characters." };
  if (source.startsWith("hf:")) {
    return { ...(await ask(rest)), withoutModel: "The job fetches the model: until then lengths are characters." };
  }
  try {
    return await ask(asked);
  } catch (problem) {
    // the field of the model says what is wrong with it; the rows can be looked at all the same
    if (problem.field !== "model") throw problem;
    return { ...(await ask(rest)), withoutModel: "The model cannot be read: these are characters, not its tokens." };
  }
}
