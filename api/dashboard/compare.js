// The side-by-side box: one prompt, the streaming answers of the base and the aligned model.

import { Problem, send } from "./api.js";
import { count } from "./format.js";
import { frames } from "./sse.js";
import { Component, html, ProblemNote } from "./ui.js";

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
    const response = await send("v1/comparisons", { method: "POST", body, headers, signal });
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
    return html`
      <form class="prompt" onSubmit=${this.submit}>
        <label>Prompt <textarea name="prompt" rows="3" required onKeyDown=${this.keys}
            placeholder="Ask both models the same thing"></textarea></label>
        <div class="options">
          <label>Tokens, at most <input name="max_tokens" type="number" min="1" max="4096" value="256" required /></label>
          <label>Temperature <input name="temperature" type="number" min="0" max="2" step="0.1" value="0" required /></label>
          <label>Seed <input name="seed" type="number" min="0" value="0" required /></label>
          ${run
            ? html`<button type="button" onClick=${() => run.abort()}>Stop</button>`
            : html`<button class="primary" title="Ctrl+Enter">Compare</button>`}
        </div>
      </form>
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

function Answer({ side, answer: { text, done, problem }, running }) {
  const busy = running && !done && !problem;
  return html`
    <article class="answer ${side}" aria-busy=${Boolean(busy)}>
      <h3>${side}</h3>
      ${problem && html`<${ProblemNote} problem=${problem} />`}
      <p class="text ${busy ? "busy" : ""}">${text}</p>
      ${done && html`<small>${count(done.usage.completion_tokens, "tokens")}, ${ended(done.finish_reason)}</small>`}
    </article>
  `;
}

const ended = (reason) => (reason === "length" ? "cut at the limit" : "complete");
