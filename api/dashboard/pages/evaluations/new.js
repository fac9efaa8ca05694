// The form that makes an evaluation: two models or more, prompts, judges, sampling.

import { useLocation } from "preact-iso/router";
import { useRef, useState } from "preact/hooks";
import { json, randomKey } from "../../api.js";
import { modelTitle } from "../../components/model_title.js";
import { Loading, ProblemNote } from "../../components/notes.js";
import { useAction, useAnswer, useTitle } from "../../hooks.js";
import { html } from "../../ui.js";

const MODEL = /^job:(job-[0-9a-f]{21})/;
const ENDPOINT = "another server";

/** job: whose model is to be evaluated, if the page was come to from one. */
export function NewEvaluation({ job }) {
  useTitle("New evaluation");
  const { data, problem } = useAnswer("/v1/models");
  const prompts = useAnswer("/v1/evaluations/judge-prompts");
  const metrics = useAnswer("/v1/evaluations/metrics");
  const failed = problem ?? prompts.problem ?? metrics.problem;
  const ready = data && prompts.data && metrics.data;
  return html`
    <div class="head"><h1>New evaluation</h1></div>
    ${failed && html`<${ProblemNote} problem=${failed} />`}
    ${!failed && !ready && html`<${Loading} rows=${6} />`}
    ${ready && html`<${Form} models=${data.data} judgePrompts=${prompts.data.data} metrics=${metrics.data.data} job=${job} />`}
  `;
}

/** models: of the API. */
function Form({ models, judgePrompts, metrics, job }) {
  const { route } = useLocation();
  const ids = models.map(({ id }) => id);
  const own = job && ids.find((id) => id === `job:${job}`);
  const base = own && ids.find((id) => id === `${own}:base`);
  const [chosen, setChosen] = useState([base ?? ids[0] ?? ENDPOINT, own ?? ids[1] ?? ENDPOINT]);
  const [source, setSource] = useState(chosen.some((id) => MODEL.test(id)) ? "held_out" : "inline");
  const [judges, setJudges] = useState({ human: true, llm: false, implicit_reward: false });
  const [measures, setMeasures] = useState(new Set());
  const files = useAnswer(source === "file" ? "/v1/files?limit=100" : null);
  const [act, busy, problem] = useAction();
  const once = useRef({});
  const jobs = [...new Set(chosen.map((id) => MODEL.exec(id)?.[1]).filter(Boolean))];
  const nameOf = (id) => models.find((one) => one.id === `job:${id}`)?.name ?? id;
  const toggle = (name) => setJudges((now) => ({ ...now, [name]: !now[name] }));
  const measure = (name) => setMeasures((now) => (now.has(name) ? new Set([...now].filter((one) => one !== name)) : new Set([...now, name])));

  const submit = (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    const body = bodyOf(form, { chosen, source, judges, measures });
    const text = JSON.stringify(body);
    // the same form sent again is the same evaluation
    if (once.current.text !== text) once.current = { text, key: randomKey() };
    act(() => json("/v1/evaluations", { method: "POST", body, headers: { "Idempotency-Key": once.current.key } })).then(
      (made) => made && route(`/evaluations/${made.id}`),
    );
  };

  return html`
    <form class="evaluation-form card" onSubmit=${submit}>
      ${problem && html`<${ProblemNote} problem=${problem} />`}
      <label>Name <input name="name" maxlength="200" placeholder="for people" /></label>
      <fieldset>
        <legend>Models, the baseline first</legend>
        ${chosen.map((id, place) => html`<${Model} key=${place} ...${{ id, place, models }} onChange=${(to) => setChosen(chosen.with(place, to))} />`)}
        <div class="bar">
          ${chosen.length < 8 && html`<button type="button" onClick=${() => setChosen([...chosen, ids[0] ?? ENDPOINT])}>Another model</button>`}
          ${chosen.length > 2 && html`<button type="button" class="quiet" onClick=${() => setChosen(chosen.slice(0, -1))}>Without the last one</button>`}
        </div>
      </fieldset>
      <fieldset>
        <legend>Prompts</legend>
        <div class="row">
          <label>From <select value=${source} onChange=${(event) => setSource(event.target.value)}>
            ${jobs.length > 0 && html`<option value="held_out">rows that a job held out</option>`}
            <option value="inline">texts</option>
            <option value="file">an uploaded file</option>
          </select></label>
          ${source === "held_out" && html`<label>Job <select name="held_out_job">${jobs.map((id) => html`<option key=${id} value=${id}>${nameOf(id)}</option>`)}</select></label>`}
          ${source === "file" && html`<label>File <input name="file_id" required placeholder="file-…" list="prompt-files" /></label>
            <datalist id="prompt-files">${(files.data?.data ?? []).map(({ id, filename }) => html`<option key=${id} value=${id}>${filename}</option>`)}</datalist>`}
          ${source !== "inline" && html`<label>At most <input name="max" type="number" min="1" max="2000" value="100" required /></label>`}
        </div>
        ${source === "inline" && html`<label>Prompts, an empty line between two <textarea name="texts" rows="6" required></textarea></label>`}
      </fieldset>
      <fieldset>
        <legend>Judges</legend>
        <label class="inline"><input type="checkbox" checked=${judges.human} onChange=${() => toggle("human")} />People, who vote blind</label>
        <label class="inline"><input type="checkbox" checked=${judges.llm} onChange=${() => toggle("llm")} />A model, each pair in both orders</label>
        ${judges.llm && html`<${LlmJudge} models=${models} judgePrompts=${judgePrompts} />`}
        ${jobs.length > 0 && html`<label class="inline"><input type="checkbox" checked=${judges.implicit_reward} onChange=${() => toggle("implicit_reward")} />Implicit rewards on held-out pairs, as the job measured them</label>`}
        ${metrics.map(
          (name) => html`<label key=${name} class="inline"><input type="checkbox" checked=${measures.has(name)} onChange=${() => measure(name)} />The metric ${name}, of each answer</label>`,
        )}
        ${metrics.length === 0 && html`<p class="help">Metrics of your own in Python are listed here once a package that offers them is installed (docs/evaluation.md).</p>`}
      </fieldset>
      <fieldset>
        <legend>Sampling, the same for all models</legend>
        <div class="row">
          <label>Longest answer, tokens <input name="max_tokens" type="number" min="1" max="8192" value="256" required /></label>
          <label>Temperature <input name="temperature" type="number" min="0" max="2" step="0.05" value="0" required /></label>
          <label>Seed <input name="seed" type="number" min="0" max="2147481647" value="0" required /></label>
        </div>
      </fieldset>
      <div class="bar"><button class="primary push" disabled=${busy || (measures.size === 0 && !Object.values(judges).some(Boolean))}>Evaluate</button></div>
    </form>
  `;
}

const Model = ({ id, place, models, onChange }) => html`
  <div class="row">
    <label>${place === 0 ? "Baseline" : "Model"} <select value=${id} onChange=${(event) => onChange(event.target.value)}>
      <${Options} models=${models} />
    </select></label>
    <label>Called <input name="name_${place}" maxlength="100" required defaultValue=${place === 0 ? "base" : place === 1 ? "aligned" : `model ${place}`} /></label>
    ${id === ENDPOINT && html`<${Server} prefix="model_${place}" />`}
  </div>
`;

const Options = ({ models }) => html`
  ${models.map((one) => html`<option key=${one.id} value=${one.id}>${modelTitle(one)}</option>`)}
  <option>${ENDPOINT}</option>
`;

/** The fields of a server that speaks OpenAI's API. */
const Server = ({ prefix }) => html`
  <label>URL up to /chat/completions <input name="${prefix}_url" type="url" required placeholder="https://…/v1" /></label>
  <label>Its name of the model <input name="${prefix}_model" required /></label>
  <label>Name of its key, if it needs one <input name="${prefix}_secret" /></label>
`;

function LlmJudge({ models, judgePrompts }) {
  const [id, setId] = useState(ENDPOINT);
  return html`
    <div class="row">
      <label>Judge <select name="judge" value=${id} onChange=${(event) => setId(event.target.value)}>
        <${Options} models=${models} />
      </select></label>
      ${id === ENDPOINT && html`<${Server} prefix="judge" />`}
    </div>
    <details>
      <summary>What it is told</summary>
      <label>Prompt, with the places {prompt}, {answer_a} and {answer_b} <textarea name="judge_prompt" rows="12" defaultValue=${judgePrompts[0].text}></textarea></label>
      <input type="hidden" name="judge_prompt_name" value=${judgePrompts[0].name} />
      <input type="hidden" name="judge_prompt_text" value=${judgePrompts[0].text} />
    </details>
  `;
}

/** The request that the form says. */
function bodyOf(form, { chosen, source, judges, measures }) {
  const number = (name) => Number(form.get(name));
  const server = (prefix) => {
    const secret = form.get(`${prefix}_secret`);
    return { url: form.get(`${prefix}_url`), model: form.get(`${prefix}_model`), ...(secret && { secret }) };
  };
  const asked = (id, prefix) => (id === ENDPOINT ? { endpoint: server(prefix) } : { model: id });
  const prompts = {
    held_out: () => ({ type: "held_out", job_id: form.get("held_out_job"), max: number("max") }),
    file: () => ({ type: "file", file_id: form.get("file_id"), max: number("max") }),
    inline: () => ({ type: "inline", items: form.get("texts").split(/\n\s*\n/).map((text) => text.trim()).filter(Boolean).map((prompt) => ({ prompt })) }),
  }[source]();
  const written = form.get("judge_prompt")?.replaceAll("\r\n", "\n");
  const isOurs = written === form.get("judge_prompt_text")?.replaceAll("\r\n", "\n");
  return {
    ...(form.get("name") && { name: form.get("name") }),
    models: chosen.map((id, place) => ({ name: form.get(`name_${place}`), ...asked(id, `model_${place}`) })),
    prompts,
    judges: [
      judges.human && { type: "human" },
      judges.llm && { type: "llm", ...asked(form.get("judge"), "judge"), prompt: isOurs ? form.get("judge_prompt_name") : written },
      judges.implicit_reward && { type: "implicit_reward" },
      ...[...measures].map((metric) => ({ type: "metric", name: metric, metric })),
    ].filter(Boolean),
    sampling: { max_tokens: number("max_tokens"), temperature: number("temperature"), seed: number("seed") },
  };
}
