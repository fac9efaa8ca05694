// One pair: its flag, its prompt, and both answers token by token.

import { useEffect } from "preact/hooks";
import { Loading, ProblemNote } from "../../components/notes.js";
import { useWho } from "../../components/who.js";
import { number } from "../../format.js";
import { useAnswer } from "../../hooks.js";
import { html } from "../../ui.js";
import { Legend, scaleOf, signed, Tokens } from "./tokens.js";

/** flags: of useFlags. mark: flags this pair with an action, null to take the flag back. */
export function Detail({ base, row, flags, mark, onLoaded }) {
  const mayFlag = useWho().may("member");
  const { data: pair, problem } = useAnswer(`${base}/${row}`);
  useEffect(() => {
    if (pair) onLoaded(pair);
  }, [pair]);
  const flag = flags.flagOf(row, pair?.flag);

  if (problem) return html`<section class="card"><${ProblemNote} problem=${problem} /></section>`;
  if (!pair) return html`<section class="card"><${Loading} rows=${10} label="Loading the pair…" /></section>`;
  const scale = scaleOf(pair.chosen, pair.rejected);
  return html`
    <section class="card pair" aria-labelledby="pair-title">
      <div class="head">
        <h2 id="pair-title">Row ${row}</h2>
        ${mayFlag &&
        html`<span class="actions">
          <button aria-pressed=${flag?.action === "swap"} onClick=${() => mark("swap")}>
            Answers swapped <kbd>s</kbd>
          </button>
          <button aria-pressed=${flag?.action === "drop"} onClick=${() => mark("drop")}>
            Drop <kbd>d</kbd>
          </button>
          <button class="quiet" aria-pressed=${!flag} onClick=${() => mark(null)}>No flag <kbd>u</kbd></button>
        </span>`}
        ${!mayFlag && flag && html`<span class="state ${flag.action}">${flag.action}</span>`}
      </div>
      ${flags.problem && html`<${ProblemNote} problem=${flags.problem} />`}
      ${mayFlag &&
      html`<label class="pair-note">Note for others, kept with the next flag
        <input
          value=${flags.noteOf(row, pair.flag)}
          maxlength="2000"
          onInput=${(event) => flags.write(row, event.target.value)}
        />
      </label>`}
      <dl class="facts">
        <div><dt>margin before</dt><dd class="number">${number(pair.margin_before)}</dd></div>
        <div><dt>margin after</dt><dd class="number">${number(pair.margin_after)}</dd></div>
        <div><dt>change</dt><dd class="number">${signed(pair.margin_change)}</dd></div>
        <div><dt>per token, after</dt><dd class="number">${signed(pair.margin_per_token)}</dd></div>
      </dl>
      <h3>Prompt</h3>
      <pre class="pair-prompt" tabindex="0" role="region" aria-label="Prompt">${pair.prompt}</pre>
      <${Legend} scale=${scale} />
      ${["chosen", "rejected"].map((name) => html`<${Answer} key=${name} name=${name} pair=${pair} scale=${scale} />`)}
      ${pair.cut &&
      html`<p class="note warn">The texts are too long for this page: the start of the prompt or the end of an answer is missing.</p>`}
      ${pair.num_answers > 2 &&
      html`<p class="muted">The row ranks ${pair.num_answers} answers: these are the best and the worst of them.</p>`}
    </section>
  `;
}

function Answer({ name, pair, scale }) {
  const [before, after] = [pair[`${name}_before`], pair[`${name}_after`]];
  const change = before === null || after === null ? null : after - before;
  return html`
    <h3 class="answer-title">
      ${name === "chosen" ? "Chosen" : "Rejected"}
      <span class="muted number">
        log-prob ${number(before)} → ${number(after)} (${signed(change)}), ${number(pair[`${name}_tokens`])} tokens
      </span>
    </h3>
    <${Tokens} name=${name} tokens=${pair[name]} scale=${scale} />
  `;
}
