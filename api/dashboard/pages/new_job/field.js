// One field of a job, by the kind that its schema gives it. An empty one stands for the default.

import { useEffect, useId, useState } from "preact/hooks";
import { Prose } from "../../components/prose.js";
import { html } from "../../ui.js";

/**
 * field: of schema.js. value: undefined for the default. onChange(value). problem: what the API said of this field.
 * suggestions: [{value, label}] for a text.
 */
export function Field({ field, value, onChange, problem, suggestions, required }) {
  const id = useId();
  if (field.kind === "object") return html`<${Whole} ...${{ field, value, onChange, problem }} />`;
  if (field.kind === "variant") return html`<${Variant} ...${{ field, value, onChange, problem }} />`;
  const control = { id, field, value, onChange, suggestions, required, described: `${id}-help`, invalid: Boolean(problem) };
  const Control = CONTROLS[field.kind] ?? Text;
  return html`
    <div class="field ${field.kind}">
      <label for=${id}>${field.title}${saysMore(field) && html` <span class="unit">in ${field.unit}</span>`}</label>
      <${Control} ...${control} />
      ${problem && html`<p class="field-problem" role="alert">${problem}</p>`}
      <p class="help" id="${id}-help"><${Prose} text=${field.description} /></p>
    </div>
  `;
}

/**
 * [text, onInput]: what is written in a control and the value it stands for, which is not always one yet ("1e-").
 * read(text) is the value, undefined for the default, or null while it is none.
 */
function useText(value, write, read) {
  const [text, setText] = useState(write(value));
  const own = JSON.stringify(read(text));
  useEffect(() => {
    if (own !== "null" && own !== JSON.stringify(value)) setText(write(value)); // changed from elsewhere
  }, [JSON.stringify(value)]);
  const onInput = (onChange) => ({ target }) => {
    setText(target.value);
    const meant = read(target.value);
    target.setCustomValidity(meant === null ? "This is not a number." : "");
    if (meant !== null) onChange(meant);
  };
  return [text, onInput];
}

/** "Policy workers" need not be said to be counted in workers. */
const saysMore = ({ title, unit }) => unit && !` ${words(title)} `.includes(` ${words(unit)} `);
const words = (text) => text.toLowerCase().replace("-", " ");

const none = (text) => text.trim() === "";

function Text({ id, field, value, onChange, suggestions, required, described, invalid }) {
  // a model with more than a name keeps the rest
  const [text, onInput] = useText(
    value,
    (one) => (typeof one === "object" ? one.source : (one ?? "")),
    (one) => (none(one) ? undefined : typeof value === "object" ? { ...value, source: one.trim() } : one.trim()),
  );
  return html`
    <input id=${id} value=${text} onInput=${onInput(onChange)} required=${required} maxlength=${field.maxLength}
      aria-describedby=${described} aria-invalid=${invalid} autocomplete="off" spellcheck=${false}
      placeholder=${field.default ?? ""} list=${suggestions && `${id}-list`} />
    ${suggestions &&
    html`<datalist id="${id}-list">
      ${suggestions.map((one) => html`<option key=${one.value} value=${one.value}>${one.label}</option>`)}
    </datalist>`}
  `;
}

/** Not type="number", which takes no text such as 1e-6 while it is written; the API checks the range. */
function NumberInput({ id, field, value, onChange, described, invalid }) {
  const [text, onInput] = useText(
    value,
    (one) => (one === undefined ? "" : String(one)),
    (one) => (none(one) ? undefined : Number.isFinite(Number(one)) ? Number(one) : null),
  );
  return html`<input id=${id} inputmode=${field.kind === "integer" ? "numeric" : "decimal"} value=${text}
    placeholder=${field.default ?? "not set"} onInput=${onInput(onChange)} autocomplete="off"
    aria-describedby=${described} aria-invalid=${invalid} />`;
}

function Choice({ id, field, value, onChange, described, invalid }) {
  const change = ({ target }) => onChange(target.value === field.default ? undefined : target.value);
  return html`
    <select id=${id} value=${value ?? field.default ?? ""} onChange=${change} aria-describedby=${described} aria-invalid=${invalid}>
      ${field.default === undefined || field.default === null ? html`<option value="">not set</option>` : null}
      ${field.choices.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}
    </select>
  `;
}

function Check({ id, field, value, onChange, described }) {
  const change = ({ target }) => onChange(target.checked === field.default ? undefined : target.checked);
  return html`<input id=${id} type="checkbox" checked=${value ?? field.default} onChange=${change} aria-describedby=${described} />`;
}

/** A list of words, or one word that stands for a list. */
function Words({ id, field, value, onChange, described, invalid }) {
  const [text, onInput] = useText(
    value,
    (one) => (Array.isArray(one) ? one.join(", ") : (one ?? "")),
    (one) => (none(one) || one.trim() === field.default ? undefined : one.split(/[\s,]+/).filter(Boolean)),
  );
  const start = Array.isArray(field.default) ? field.default.join(", ") : field.default;
  return html`<input id=${id} value=${text} onInput=${onInput(onChange)} placeholder=${start || "names, with commas between"}
    aria-describedby=${described} aria-invalid=${invalid} autocomplete="off" spellcheck=${false} />`;
}

/** Labels, one `name: value` a line. */
function Labels({ id, value, onChange, described, invalid }) {
  const [text, onInput] = useText(
    value,
    (labels) => Object.entries(labels ?? {}).map(([name, label]) => `${name}: ${label}`).join("\n"),
    (one) => (none(one) ? undefined : Object.fromEntries(one.split("\n").filter((line) => !none(line)).map(labelOf))),
  );
  return html`<textarea id=${id} rows="2" value=${text} onInput=${onInput(onChange)} placeholder="team: chat"
    aria-describedby=${described} aria-invalid=${invalid}></textarea>`;
}

function labelOf(line) {
  const [name, ...rest] = line.split(":");
  return [name.trim(), rest.join(":").trim()];
}

const CONTROLS = {
  number: NumberInput,
  integer: NumberInput,
  choice: Choice,
  boolean: Check,
  words: Words,
  map: Labels,
};

/** An object that is there or not. */
function Whole({ field, value, onChange, problem }) {
  const id = useId();
  const change = ({ target }) => onChange(target.checked ? {} : undefined);
  return html`
    <fieldset class="whole">
      <legend><label class="inline" for=${id}><input id=${id} type="checkbox" checked=${value !== undefined} onChange=${change}
            aria-describedby="${id}-help" />${field.title}</label></legend>
      <p class="help" id="${id}-help"><${Prose} text=${field.description} /></p>
      ${problem && html`<p class="field-problem" role="alert">${problem}</p>`}
      ${value && html`<${Fields} ...${{ fields: field.fields, value, onChange }} />`}
    </fieldset>
  `;
}

/** One of several forms, told apart by `type`. */
function Variant({ field, value, onChange, problem }) {
  const first = field.variants[0].type;
  const { type, fields, description } = field.variants.find((one) => one.type === (value?.type ?? first));
  const choose = (chosen) => onChange(chosen === first ? undefined : { type: chosen });
  return html`
    <fieldset class="variant">
      <legend>${field.title}</legend>
      <div class="segments">
        ${field.variants.map(
          (one) => html`
            <label key=${one.type} class="inline">
              <input type="radio" name=${field.path} checked=${one.type === type} onChange=${() => choose(one.type)} />${one.type}
            </label>
          `,
        )}
      </div>
      <p class="help">${description && html`<${Prose} text=${description} />`}</p>
      ${problem && html`<p class="field-problem" role="alert">${problem}</p>`}
      <${Fields} fields=${fields} value=${value ?? { type }} onChange=${onChange} />
    </fieldset>
  `;
}

/** The fields of an object; those at their default are not in it. */
export const Fields = ({ fields, value, onChange, problems = {} }) => html`
  <div class="fields">
    ${fields.map((field) => {
      const name = field.path.split(".").at(-1);
      const change = (part) => {
        const { [name]: _, ...rest } = value;
        onChange(part === undefined ? rest : { ...rest, [name]: part });
      };
      return html`<${Field} key=${name} field=${field} value=${value[name]} onChange=${change} problem=${problems[name]} />`;
    })}
  </div>
`;
