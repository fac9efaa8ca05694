// A new job: a form made of the job's own schema, with what would become of it beside.

import { useLocation } from "preact-iso/router";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { json, Problem, randomKey } from "../api.js";
import { Loading, ProblemNote } from "../components/notes.js";
import { useAction, useAnswer, useTitle } from "../hooks.js";
import { html, stylesheet } from "../ui.js";
import { Admission } from "./new_job/admission.js";
import { Field } from "./new_job/field.js";
import { Losses, problemsOf } from "./new_job/losses.js";
import { Preview } from "./new_job/preview.js";
import { draftOf, fieldAt, patchOf, specOf } from "./new_job/schema.js";
import { Snippets } from "./new_job/snippets.js";
import { Upload } from "./new_job/upload.js";

await stylesheet("./new_job.css", import.meta.url);

const SETTLED_MS = 500;

export default function NewJob() {
  useTitle("New job");
  const { query } = useLocation();
  const schema = useAnswer("/v1/schema/job");
  const losses = useAnswer("/v1/losses");
  const source = useAnswer(query.clone ? `/v1/jobs/${encodeURIComponent(query.clone)}` : null);
  const answers = [schema, losses, ...(query.clone ? [source] : [])];
  const problem = answers.find((answer) => answer.problem)?.problem;
  const ready = answers.every((answer) => answer.data);
  return html`
    <div class="head"><h1>New job</h1></div>
    ${problem && html`<${ProblemNote} problem=${problem} />`}
    ${!problem && !ready && html`<${Loading} rows=${8} />`}
    ${ready &&
    html`<${Form} key=${query.clone} schema=${schema.data} catalogue=${losses.data} start=${startOf(query, schema.data, source.data)}
      from=${query.clone ? source.data : null} />`}
  `;
}

/** What the address says to begin with: the specification of a job, a file, a model. */
function startOf({ file, model }, { json_schema: root, groups }, cloned) {
  const paths = groups.flatMap(({ fields, advanced }) => [...fields, ...advanced]);
  const draft = cloned ? draftOf(cloned.spec, paths, root) : {};
  if (file) draft["data.train"] = file;
  if (model) draft.model = model;
  return draft;
}

function Form({ schema: { json_schema: root, groups }, catalogue, start, from }) {
  const [draft, setDraft] = useState(start);
  const { route } = useLocation();
  const spec = useMemo(() => specOf(draft), [draft]);
  const { report, snippets, problem, busy } = useFindings(spec);
  const [create, creating, refused] = useAction();
  const once = useRef({});
  const set = (path) => (value) => setDraft((before) => ({ ...before, [path]: value }));
  const problems = useMemo(() => fieldProblems(report, refused ?? problem), [report, refused, problem]);

  const submit = (event) => {
    event.preventDefault();
    create(async () => {
      const body = JSON.stringify(spec);
      // The same job sent twice, because its answer was lost, is one job.
      if (once.current.body !== body) once.current = { body, key: randomKey() };
      const path = from ? `/v1/jobs/${from.id}/clone` : "/v1/jobs"; // a clone remembers where it is from
      const job = await json(path, { method: "POST", body: from ? patchOf(from.spec, spec) : spec, headers: { "Idempotency-Key": once.current.key } });
      route(`/jobs/${job.id}`);
    });
  };
  return html`
    ${from && html`<p class="muted">With the specification of <a href="/jobs/${from.id}">${from.name ?? from.id}</a>; the job begins anew.</p>`}
    <form class="new-job" onSubmit=${submit}>
      <div class="groups">
        ${groups.map((group) => html`<${Group} key=${group.title} ...${{ group, root, catalogue, draft, spec, set, problems }} />`)}
      </div>
      <div class="beside">
        <section class="card" aria-label="Admission">
          <h2>Admission</h2>
          ${report && html`<${Admission} report=${report} busy=${busy} />`}
          ${!report && !problem && html`<p class="muted">${busy ? "Checking…" : "Choose a model and rows: then this says whether the job can run, when, and what it takes."}</p>`}
          ${problem && !report && html`<${ProblemNote} problem=${problem} />`}
          ${refused && html`<${ProblemNote} problem=${refused} />`}
          <button class="primary wide" disabled=${creating || !report?.ok || busy}>${creating ? "Creating…" : "Create the job"}</button>
        </section>
        ${snippets && html`<section class="card" aria-label="The same job elsewhere"><h2>The same job elsewhere</h2><${Snippets} snippets=${snippets} /></section>`}
      </div>
    </form>
  `;
}

function Group({ group, root, catalogue, draft, spec, set, problems }) {
  const fields = (paths) =>
    paths.map((path) => {
      const problem = problems[path] ?? Object.values(problemsOf(problems, path))[0];
      if (path === "losses") {
        return html`<${Losses} key=${path} ...${{ catalogue, root, problems }} value=${draft.losses} onChange=${set(path)} />`;
      }
      if (path === "data.train") {
        return html`<${Rows} key=${path} field=${fieldAt(path, root)} value=${draft[path]} onChange=${set(path)} problem=${problem} />`;
      }
      if (path === "model") {
        return html`<${Model} key=${path} field=${fieldAt(path, root)} value=${draft[path]} onChange=${set(path)} problem=${problem} />`;
      }
      return html`<${Field} key=${path} field=${fieldAt(path, root)} value=${draft[path]} onChange=${set(path)} problem=${problem} />`;
    });
  const numSet = group.advanced.filter((path) => draft[path] !== undefined).length;
  const wrong = group.advanced.some((path) => Object.keys(problemsOf(problems, path)).length > 0);
  return html`
    <section class="card group" aria-label=${group.title}>
      <h2>${group.title}</h2>
      <p class="muted about">${group.description}</p>
      <div class="fields">${fields(group.fields)}</div>
      ${group.advanced.length > 0 &&
      html`
        <details class="advanced" open=${wrong || undefined}>
          <summary>More (${group.advanced.length}${numSet > 0 ? `, ${numSet} set` : ""})</summary>
          <div class="fields">${fields(group.advanced)}</div>
        </details>
      `}
      ${group.fields.includes("data.train") && html`<${Preview} spec=${spec} />`}
    </section>
  `;
}

function Model(props) {
  const { data } = useAnswer("/v1/models");
  const suggestions = (data?.data ?? [])
    .filter(({ id }) => !id.endsWith(":base"))
    .map(({ id, name }) => ({ value: id, label: name ?? "" }));
  return html`<${Field} ...${props} suggestions=${suggestions} required />`;
}

function Rows(props) {
  const { data, refresh } = useAnswer("/v1/files?limit=100");
  const suggestions = (data?.data ?? []).map(({ id, filename }) => ({ value: id, label: filename }));
  const chosen = suggestions.find(({ value }) => value === props.value);
  const uploaded = (file) => {
    props.onChange(file.id);
    refresh();
  };
  return html`
    <div class="rows">
      <${Upload} onUploaded=${uploaded} />
      <${Field} ...${props} suggestions=${suggestions} required />
      ${chosen && html`<p class="muted">The file ${chosen.label}.</p>`}
    </div>
  `;
}

/** What the API says of a specification, asked when it has settled: {report, snippets, problem, busy}. */
function useFindings(spec) {
  const asked = spec.model && spec.data?.train ? JSON.stringify(spec) : null;
  const [found, setFound] = useState({ report: null, snippets: null, problem: null, busy: false });
  useEffect(() => {
    if (asked === null) {
      setFound({ report: null, snippets: null, problem: null, busy: false });
      return undefined;
    }
    const abort = new AbortController();
    setFound((before) => ({ ...before, busy: true }));
    const timer = setTimeout(async () => {
      const options = { method: "POST", body: JSON.parse(asked), signal: abort.signal };
      try {
        const [snippets, report] = await Promise.all([
          json("/v1/schema/job/snippets", options),
          json("/v1/jobs?dry_run=true", options),
        ]);
        setFound({ report, snippets, problem: null, busy: false });
      } catch (problem) {
        if (problem.name === "AbortError") return;
        if (!(problem instanceof Problem)) throw problem;
        setFound({ report: null, snippets: null, problem, busy: false });
      }
    }, SETTLED_MS);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [asked]);
  return found;
}

/** Messages by the field that they are about. */
function fieldProblems(report, problem) {
  const found = {};
  for (const { field, message } of problem?.errors ?? []) if (field) found[field] ??= message;
  if (problem?.field) found[problem.field] ??= problem.detail;
  for (const { ok, field, message } of report?.checks ?? []) if (!ok && field) found[field] ??= message;
  return found;
}
