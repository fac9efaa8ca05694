// The side-by-side box: one prompt, the streaming answers of the base and the aligned model.

import { Problem, send } from "../../api.js";
import { count } from "../../format.js";
import { frames } from "../../sse.js";
import { ProblemNote } from "../../components/notes.js";
import { Component, html } from "../../ui.js";

const ENDS = { length: "cut at the limit" };
const waiting = () => ({ text: "", done: null, problem: null });

export class Compare extends Component {
  // `run` is the AbortController of the comparison under way
  state = { prompt: "", base: null, aligned: null, problem: null, run: null };

  componentWillUnmount() {
    this.state.run?.abort();
  }

  submit = async (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    const body = {
      job_id: this.props.jobId,
      prompt: form.get("prompt"),
      max_tokens: Number(form.get("max_tokens")),
      temperature: Number(form.get("temperature")),
      seed: Number(form.get("seed")),
    };
    const run = new AbortController();
    this.setState({ prompt: body.prompt, base: waiting(), aligned: waiting(), problem: null, run });
    try {
      await this.stream(body, run.signal);
    } catch (problem) {
      if (problem.name === "AbortError") return;
      if (!(problem instanceof Problem)) throw problem;
      // refused before the first word: there are no answers to show
      this.setState(problem.status ? { problem, base: null, aligned: null } : { problem });
    } finally {
      this.setState({ run: null });
    }
  };

  async stream(body, signal) {
    const headers = { Accept: "text/event-stream" };
    const response = await send("/v1/comparisons", { method: "POST", body, headers, signal });
    for await (const { event, data } of frames(response.body)) {
      if (event === "end") return;
      if (event === "delta") this.change(data.side, ({ text }) => ({ text: text + data.text }));
      else if (event === "done") this.change(data.side, () => ({ done: data }));
      else if (event === "error") this.change(data.side, () => ({ problem: data.problem }));
    }
    throw new Problem({ title: "The answers broke off", detail: "Ask again.", code: "incomplete", status: 0 });
  }

  change(side, update) {
    this.setState((state) => ({ [side]: { ...state[side], ...update(state[side]) } }));
  }

  /** Ctrl+Enter or Cmd+Enter sends. */
  keys = (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || this.state.run) return;
    event.preventDefault();
    event.target.form.requestSubmit();
  };

  render(_, { prompt, base, aligned, problem, run }) {
    // Two elements, told apart by key: one that turned from Stop into Compare during its click would send the form.
    const button = run
      ? html`<button key="stop" type="button" onClick=${() => run.abort()}>Stop</button>`
      : html`<button key="compare" class="primary" title="Ctrl+Enter">Compare</button>`;
    return html`
      <form class="prompt" onSubmit=${this.submit}>
        <label>Prompt <textarea name="prompt" rows="3" required onKeyDown=${this.keys}
            placeholder="Ask both models the same thing"></textarea></label>
        <div class="options">
          <${Field} label="Tokens, at most" name="max_tokens" min="1" max="4096" start="256" />
          <${Field} label="Temperature" name="temperature" min="0" max="2" step="0.1" start="0" />
          <${Field} label="Seed" name="seed" min="0" max="2147483647" start="0" />
          ${button}
        </div>
      </form>
      <p class="muted"><a href="/side-by-side?job=${this.props.jobId}">Go on in a conversation, with other models, or vote blind</a></p>
      ${problem && html`<${ProblemNote} problem=${problem} />`}
      ${base && html`
        <blockquote class="asked">${prompt}</blockquote>
        <div class="sides">
          <${Answer} side="base" answer=${base} running=${run} />
          <${Answer} side="aligned" answer=${aligned} running=${run} />
        </div>
      `}
    `;
  }
}

// `defaultValue`, because `value` would put the start back at every drawing
const Field = ({ label, start, ...limits }) => html`
  <label>${label} <input type="number" required defaultValue=${start} ...${limits} /></label>
`;

function Answer({ side, answer: { text, done, problem }, running }) {
  const busy = running && !done && !problem;
  return html`
    <article class="answer ${side}" aria-busy=${Boolean(busy)}>
      <h3>${side}</h3>
      ${problem && html`<${ProblemNote} problem=${problem} />`}
      <p class="text ${busy ? "busy" : ""}">${text}</p>
      ${done && html`<small>${length(done)}${ENDS[done.finish_reason] ?? "complete"}</small>`}
    </article>
  `;
}

const length = ({ usage: { completion_tokens: n } }) => (n === undefined ? "" : `${count(n, "tokens")}, `);
