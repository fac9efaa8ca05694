// The loss chooser: terms with their options, each with its formula and a plot against the margin, and their sum.

import { useId, useMemo, useState } from "preact/hooks";
import { Prose } from "../../components/prose.js";
import { html } from "../../ui.js";
import { Fields } from "./field.js";
import { LossPlot, useCurves } from "./loss_plot.js";
import { lossFields } from "./schema.js";

const SHAPES = {
  pairs: "Pairs: a chosen and a rejected answer",
  ranked: "Rankings, best first",
  unpaired: "Single answers with a label",
  answers: "Good answers alone",
};
const MOST_TERMS = 8;

/** value: the terms, or undefined for DPO alone. problems: what the API said, by dotted path. */
export function Losses({ catalogue, root, value, onChange, problems }) {
  const terms = value ?? [{ type: catalogue.data[0].type }];
  const put = (index, term) => onChange(terms.map((one, at) => (at === index ? term : one)));
  const drop = (index) => onChange(terms.filter((_, at) => at !== index));
  const add = () => onChange([...terms, { type: "sft", weight: 1 }]);
  const { curves, of, problem, stale } = useCurves(terms);
  const found = { ...fieldsOf(problem), ...problems };
  const plot = { margins: curves?.margins, stale, problem };
  const curveOf = ({ type }, index) => (of[index]?.type === type ? curves.terms[index] : undefined);
  return html`
    <div class="terms">
    ${terms.map(
      (term, index) => html`
        <${Term} key=${`${index} ${term.type}`} ...${{ catalogue, root, term, index }} problems=${found} only=${terms.length === 1}
          plot=${{ ...plot, curve: curveOf(term, index) }} onChange=${(changed) => put(index, changed)} onDrop=${() => drop(index)} />
      `,
    )}
    ${terms.length > 1 &&
    html`<div class="total"><h3>All terms together</h3><${LossPlot} ...${plot} title="The weighted sum of all terms" curve=${curves?.total} /></div>`}
    ${terms.length < MOST_TERMS && html`<button type="button" onClick=${add}>Add a term</button>`}
    <details class="notation">
      <summary>Notation and plot</summary>
      <p class="help"><${Prose} text=${catalogue.notation} /></p>
      <p class="help">The plots: each term times its weight. <${Prose} text=${catalogue.curve_setting} /></p>
    </details>
    </div>
  `;
}

function Term({ catalogue, root, term, index, only, plot, onChange, onDrop, problems }) {
  const id = useId();
  const loss = catalogue.data.find(({ type }) => type === term.type);
  const fields = useMemo(() => lossFields(term.type, root), [term.type, root]);
  const own = problemsOf(problems, `losses.${index}`);
  const [opened] = useState(only && set(term) > 0); // at first: later it is as the reader leaves it
  return html`
    <fieldset class="term">
      <legend>${only ? "Term" : `Term ${index + 1}`}</legend>
      <div class="term-head">
        <div>
          <label for=${id}>Loss</label>
          <select id=${id} value=${term.type} onChange=${({ target }) => onChange({ type: target.value })}>
            ${Object.entries(SHAPES).map(
              ([shape, title]) => html`
                <optgroup key=${shape} label=${title}>
                  ${catalogue.data
                    .filter((one) => one.data_shape === shape)
                    .map((one) => html`<option key=${one.type} value=${one.type}>${one.type} – ${one.title}</option>`)}
                </optgroup>
              `,
            )}
          </select>
        </div>
        ${!only && html`<button type="button" class="quiet" onClick=${onDrop}>Remove term ${index + 1}</button>`}
      </div>
      ${own[""] && html`<p class="field-problem" role="alert">${own[""]}</p>`}
      <div class="term-body">
        <div>
          <p class="formula"><code>${loss.formula}</code></p>
          <p><${Prose} text=${loss.when_to_use} /></p>
          <p class="muted">
            ${loss.needs_reference ? "Reads the reference model" : "Needs no reference model"}${loss.paper && html` · <a href=${loss.paper} rel="noreferrer" target="_blank">paper</a>`}
          </p>
        </div>
        <div><${LossPlot} ...${plot} title=${loss.title} /></div>
      </div>
      <details class="options" open=${opened}>
        <summary>Options${set(term) > 0 ? ` (${set(term)} set)` : ""}</summary>
        <${Fields} fields=${fields} value=${term} onChange=${onChange} problems=${own} />
      </details>
    </fieldset>
  `;
}

/** What a problem says of fields, by dotted path. */
const fieldsOf = (problem) =>
  Object.fromEntries((problem?.errors ?? []).filter(({ field }) => field).map(({ field, message }) => [field, message]));

const set = (term) => Object.keys(term).length - 1;

/** What the API said of the fields below a path, by what follows it; "" is the path itself. */
export function problemsOf(problems, path) {
  const own = {};
  for (const [field, message] of Object.entries(problems)) {
    if (field === path) own[""] = message;
    else if (field.startsWith(`${path}.`)) own[field.slice(path.length + 1)] = message;
  }
  return own;
}
