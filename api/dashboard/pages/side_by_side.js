// Side by side: the same prompts to several models, under their names or blind.

import { useLocation } from "preact-iso/router";
import { useMemo, useRef, useState } from "preact/hooks";
import { json, randomKey } from "../api.js";
import { modelTitle } from "../components/model_title.js";
import { Empty, Loading, ProblemNote } from "../components/notes.js";
import { useAction, useAnswer, useTitle } from "../hooks.js";
import { html, stylesheet } from "../ui.js";
import { Blind } from "./side_by_side/blind.js";
import { Conversation, History, useConversation } from "./side_by_side/open.js";

await stylesheet("./side_by_side.css", import.meta.url);

const MOST_MODELS = 4;
const BASE = ":base";

export default function SideBySide() {
  useTitle("Side by side");
  const { query } = useLocation();
  const { data, problem } = useAnswer("/v1/models");
  return html`
    <div class="head"><h1>Side by side</h1></div>
    ${problem && html`<${ProblemNote} problem=${problem} />`}
    ${query.evaluation
      ? html`<${Blind} key=${query.evaluation} id=${query.evaluation} />`
      : !data
        ? !problem && html`<${Loading} rows=${5} />`
        : data.data.length === 0
          ? html`<${Empty} title="There is no model yet"><p>A job that has succeeded has one: <a href="/new">start a job</a>.</p><//>`
          : html`<${Asking} models=${data.data} query=${query} />`}
  `;
}

function Asking({ models, query }) {
  const { route } = useLocation();
  const [chosen, setChosen] = useState(() => startWith(models, query.job));
  const [blind, setBlind] = useState(query.mode === "blind");
  const [batch, setBatch] = useState(false);
  const [text, setText] = useState("");
  const talk = useConversation();
  const [create, creating, refused] = useAction();
  const once = useRef({});
  const names = useMemo(() => new Map(models.map((model) => [model.id, modelTitle(model)])), [models]);
  const nameOf = (id) => names.get(id) ?? id;
  const { conversation, busy } = talk;
  const goesOn = !blind && !batch && conversation !== null && !conversation.batch && conversation.models.join() === chosen.join();

  const submit = (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    const sampling = Object.fromEntries(["max_tokens", "temperature", "top_p", "seed"].map((name) => [name, Number(form.get(name))]));
    const prompts = (batch ? text.split(/\n\s*\n/) : [text]).map((one) => one.trim()).filter(Boolean);
    if (prompts.length === 0) return;
    if (blind) return startBlind(prompts, sampling);
    setText("");
    talk.put(prompts, chosen, sampling, { goesOn });
  };
  const startBlind = (prompts, sampling) =>
    create(async () => {
      const body = {
        models: chosen.map((id, index) => ({ name: unique(nameOf(id), index, chosen.map(nameOf)), model: id })),
        prompts: { type: "inline", items: prompts.map((prompt) => ({ prompt })) },
        judges: [{ type: "human", name: "people" }],
        sampling,
      };
      const said = JSON.stringify(body);
      if (once.current.said !== said) once.current = { said, key: randomKey() };
      const made = await json("/v1/evaluations", { method: "POST", body, headers: { "Idempotency-Key": once.current.key } });
      route(`/side-by-side?evaluation=${made.id}`);
    });
  const reopen = async (id) => {
    const found = await talk.history.resume(id);
    if (!found) return;
    setBlind(false);
    setChosen(found.models);
  };
  return html`
    <form class="card asking" onSubmit=${submit}>
      <div class="bar">
        <${Models} ...${{ models, chosen, setChosen, nameOf }} disabled=${busy} />
        <fieldset class="modes push">
          <legend class="visually-hidden">Mode</legend>
          <label class="inline"><input type="radio" name="mode" checked=${!blind} onChange=${() => setBlind(false)} />Named</label>
          <label class="inline"><input type="radio" name="mode" checked=${blind} onChange=${() => setBlind(true)} />Blind, with votes</label>
        </fieldset>
      </div>
      <label>${batch ? "Prompts, an empty line between two" : goesOn ? "Go on with all models" : "Prompt"}
        <textarea rows=${batch ? 8 : 3} required value=${text} onInput=${({ target }) => setText(target.value)} onKeyDown=${(event) => sendKeys(event, busy)} />
      </label>
      <div class="bar sampling">
        <${Option} label="Tokens, at most" name="max_tokens" min="1" max="4096" start="256" />
        <${Option} label="Temperature" name="temperature" min="0" max="2" step="0.1" start="0" />
        <${Option} label="Top p" name="top_p" min="0.01" max="1" step="0.01" start="1" />
        <${Option} label="Seed" name="seed" min="0" max="2147000000" start="0" />
        <label class="inline"><input type="checkbox" checked=${batch} onChange=${({ target }) => setBatch(target.checked)} />Several prompts</label>
        <div class="actions push">
          ${conversation && !blind && !busy && html`<button key="new" type="button" onClick=${() => talk.setConversation(null)}>New conversation</button>`}
          ${busy
            ? html`<button key="stop" type="button" onClick=${talk.stop}>Stop</button>`
            : html`<button key="ask" class="primary" disabled=${creating || chosen.length < 2} title="Ctrl+Enter">${blind ? "Start voting" : "Ask"}</button>`}
        </div>
      </div>
      ${blind && html`<p class="help">All models answer with the same sampling; then you vote pair by pair without knowing whose answer is whose. The votes are an evaluation of the project.</p>`}
    </form>
    ${refused && html`<${ProblemNote} problem=${refused} />`}
    ${conversation && !blind && html`<${Conversation} ...${{ conversation, busy, nameOf }} />`}
    ${blind ? html`<${EarlierBlind} />` : html`<${History} ...${talk.history} nameOf=${nameOf} onOpen=${reopen} onDrop=${talk.history.drop} />`}
  `;
}

/** The models of a job that the address names, or of the newest one that is served. */
function startWith(models, job) {
  const aligned = job ? `job:${job}` : models.find(({ id }) => id.endsWith(BASE))?.id.slice(0, -BASE.length);
  if (aligned) return [`${aligned}${BASE}`, aligned];
  return models.slice(0, 2).map(({ id }) => id);
}

/** An evaluation's models have names of their own. */
const unique = (name, index, all) => (all.indexOf(name) === index ? name : `${name} (${index + 1})`).slice(0, 100);

function Models({ models, chosen, setChosen, nameOf, disabled }) {
  const put = (index, id) => setChosen(chosen.map((one, at) => (at === index ? id : one)));
  const rest = models.filter(({ id }) => !chosen.includes(id));
  return html`
    ${chosen.map(
      (id, index) => html`
        <label key=${index} class="model">Model ${index + 1}
          <select value=${id} disabled=${disabled} onChange=${({ target }) => put(index, target.value)}>
            ${[id, ...rest.map((one) => one.id)].map((one) => html`<option key=${one} value=${one}>${nameOf(one)}</option>`)}
          </select>
        </label>
      `,
    )}
    ${rest.length > 0 && chosen.length < MOST_MODELS && html`<button type="button" disabled=${disabled} onClick=${() => setChosen([...chosen, rest[0].id])}>Add a model</button>`}
    ${chosen.length > 2 && html`<button type="button" class="quiet" disabled=${disabled} onClick=${() => setChosen(chosen.slice(0, -1))}>Remove the last</button>`}
  `;
}

// `defaultValue`, because `value` would put the start back at every drawing
const Option = ({ label, start, ...limits }) => html`
  <label>${label} <input type="number" required defaultValue=${start} ...${limits} /></label>
`;

function EarlierBlind() {
  const { data } = useAnswer("/v1/evaluations?limit=20");
  const ofPeople = (data?.data ?? []).filter(({ spec }) => spec.judges.some(({ type }) => type === "human"));
  return html`
    <section class="card" aria-label="History">
      <h2>Blind comparisons</h2>
      ${ofPeople.length === 0 && html`<p class="muted">None yet.</p>`}
      <ul class="earlier">
        ${ofPeople.map(
          (one) => html`
            <li key=${one.id}><a href="/side-by-side?evaluation=${one.id}">${one.name ?? one.models.join(" and ")}</a> <small>${one.num_items} prompts · ${one.state}</small></li>
          `,
        )}
      </ul>
    </section>
  `;
}

/** Ctrl+Enter or Cmd+Enter sends. */
function sendKeys(event, busy) {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || busy) return;
  event.preventDefault();
  event.target.form.requestSubmit();
}
