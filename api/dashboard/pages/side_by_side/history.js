// What was asked before: kept by the API, for whoever asked alone.

import { Problem, json, send } from "../../api.js";

export const EARLIER = "/v1/conversations?limit=100"; // as many as are kept

const at = (id) => `/v1/conversations/${id}`;

/** conversation: {id or key, models, sampling, batch, turns}; `key` is its alone. Resolves to its ID. */
export async function keep({ id, key, models, sampling, batch, turns }) {
  const body = { models, sampling, batch, turns: turns.map(({ prompt, answers }) => ({ prompt, answers: answers.map(said) })) };
  if (id) return replace(id, body);
  try {
    return (await json("/v1/conversations", { method: "POST", body, headers: { "Idempotency-Key": key } })).id;
  } catch (problem) {
    // It was kept with fewer turns, by a request whose answer did not come
    if (problem instanceof Problem && problem.code === "idempotency_conflict") return replace(problem.conversation_id, body);
    throw problem;
  }
}

const replace = async (id, body) => (await json(at(id), { method: "PUT", body })).id;

const said = ({ text, finish, tokens, problem }) => ({ text, finish, tokens, problem });

export async function open(id) {
  const { content } = await json(at(id));
  return { ...content, id };
}

/** Without an ID: all of them. */
export const forget = (id) => send(id === undefined ? "/v1/conversations" : at(id), { method: "DELETE" });
