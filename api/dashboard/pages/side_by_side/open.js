// Open mode: the models answer beside each other under their names, and may be asked on.

import { useEffect, useRef, useState } from "preact/hooks";
import { Problem, randomKey } from "../../api.js";
import { ProblemNote } from "../../components/notes.js";
import { Moment, count } from "../../format.js";
import { useAction, useAnswer } from "../../hooks.js";
import { html } from "../../ui.js";
import { Turn } from "./answers.js";
import { ask } from "./ask.js";
import { EARLIER, forget, keep, open } from "./history.js";

const waiting = () => ({ text: "", finish: null, tokens: null, problem: null });

/** A conversation with several models, and those that were kept of earlier ones. */
export function useConversation() {
  const [conversation, setConversation] = useState(null);
  const kept = useAnswer(EARLIER);
  const [act, , unkept] = useAction();
  const [run, setRun] = useState(null); // AbortController while answers come
  const latest = useRef(null);
  latest.current = conversation;
  useEffect(() => () => run?.abort(), [run]);

  const change = (update) => {
    latest.current = update(latest.current);
    setConversation(latest.current);
  };

  /** Puts the prompts, one after the other, to all models. goesOn: in the conversation that there is. */
  const put = async (prompts, models, sampling, { goesOn }) => {
    const abort = new AbortController();
    setRun(abort);
    if (!goesOn) change(() => ({ key: randomKey(), models, sampling, batch: prompts.length > 1, turns: [] }));
    for (const prompt of prompts) {
      const before = latest.current.batch ? [] : latest.current.turns;
      change((now) => ({ ...now, turns: [...now.turns, { prompt, answers: now.models.map(waiting) }] }));
      const place = latest.current.turns.length - 1;
      await Promise.all(latest.current.models.map((model, side) => answer(model, side, place, before, prompt, abort.signal)));
      const said = latest.current;
      const id = await act(() => keep(said));
      if (id && latest.current === said) change((now) => ({ ...now, id }));
      kept.refresh();
      if (abort.signal.aborted) break;
    }
    setRun(null);
  };

  const answer = async (model, side, place, before, prompt, signal) => {
    const update = (part) =>
      change((now) => {
        const turns = now.turns.map((turn, at) =>
          at === place ? { ...turn, answers: turn.answers.map((one, index) => (index === side ? { ...one, ...part(one) } : one)) } : turn,
        );
        return { ...now, turns };
      });
    const said = before.flatMap((turn) => [
      { role: "user", content: turn.prompt },
      { role: "assistant", content: turn.answers[side].text },
    ]);
    try {
      const onText = (piece) => update(({ text }) => ({ text: text + piece }));
      const end = await ask(model, [...said, { role: "user", content: prompt }], latest.current.sampling, { onText, signal });
      update(() => end);
    } catch (problem) {
      if (problem.name === "AbortError") update(() => ({ finish: "stopped" }));
      else if (problem instanceof Problem) update(() => ({ problem: { ...problem } }));
      else throw problem;
    }
  };
  const resume = async (id) => {
    const found = await act(() => open(id));
    if (found) setConversation(found);
    return found;
  };
  const drop = async (id) => {
    await act(() => forget(id));
    if (latest.current && (id === undefined || id === latest.current.id)) change((now) => ({ ...now, id: undefined, key: randomKey() })); // as a new one, if it goes on
    kept.refresh();
  };
  const history = { kept: kept.data?.data, problem: unkept ?? kept.problem, resume, drop };
  return { conversation, setConversation, history, put, busy: run !== null, stop: () => run?.abort() };
}

export const Conversation = ({ conversation, busy, nameOf }) => html`
  <div class="conversation">
    ${conversation.turns.map(
      (turn, index) => html`
        <${Turn} key=${index} turn=${turn} names=${conversation.models.map(nameOf)} busy=${busy && index === conversation.turns.length - 1} />
      `,
    )}
  </div>
`;

/** kept: summaries, newest first, or undefined while they are asked for. onOpen(id), onDrop(id), or onDrop() for all. */
export const History = ({ kept, problem, nameOf, onOpen, onDrop }) => html`
  <section class="card" aria-label="History">
    <div class="head"><h2>History</h2>
      ${kept?.length > 0 && html`<div class="actions"><button class="quiet" onClick=${() => onDrop()}>Forget all</button></div>`}
    </div>
    ${problem && html`<${ProblemNote} problem=${problem} />`}
    ${kept?.length === 0 && html`<p class="muted">What you ask is kept for you, and found here from any browser.</p>`}
    <ul class="earlier">
      ${(kept ?? []).map(
        (one) => html`
          <li key=${one.id}>
            <button class="quiet open" onClick=${() => onOpen(one.id)}>
              <span class="first">${one.start}</span>
              <small>${one.models.map(nameOf).join(", ")} · ${count(one.num_turns, "questions")} · <${Moment} at=${one.created_at} /></small>
            </button>
            <button class="quiet" aria-label="Forget this one" onClick=${() => onDrop(one.id)}>✕</button>
          </li>
        `,
      )}
    </ul>
  </section>
`;
