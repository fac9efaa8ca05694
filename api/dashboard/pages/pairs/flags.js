// Flags of pairs, set from keys and buttons: sent one after the other, each for the pair it was meant for.

import { useCallback, useRef, useState } from "preact/hooks";
import { json } from "../../api.js";
import { useAction } from "../../hooks.js";

/**
 * {flagOf, noteOf, write, mark, problem}: what is known of a row's flag (given what its list or its page says) and note,
 * a note being written, and `mark(row, action)`; an action of null takes the flag back.
 * onFlag: called with each row and its flag that the API has taken.
 */
export function useFlags(base, onFlag) {
  const [given, setGiven] = useState(new Map()); // by row, what the API answered; null once a flag was taken back
  const [notes, setNotes] = useState(new Map()); // by row, what is written and not sent yet
  const [run, , problem] = useAction();
  const last = useRef(Promise.resolve());
  const written = useRef(notes);
  written.current = notes;
  const flagOf = (row, said) => (given.has(row) ? given.get(row) : (said ?? null));
  const noteOf = (row, said) => notes.get(row) ?? flagOf(row, said)?.note ?? "";
  const write = (row, text) => setNotes((before) => new Map(before).set(row, text));
  const mark = useCallback(
    (row, action, said) => {
      const send = async () => {
        const path = `${base}/${row}/flag`;
        const note = written.current.get(row) ?? said?.note ?? "";
        const flag = action ? await json(path, { method: "PUT", body: { action, note } }) : null;
        if (!action) await json(path, { method: "DELETE" });
        setGiven((before) => new Map(before).set(row, flag));
        setNotes((before) => new Map([...before].filter(([other]) => other !== row)));
        await onFlag(row, flag);
      };
      last.current = last.current.then(() => run(send));
    },
    [base, onFlag],
  );
  return { flagOf, noteOf, write, mark, problem };
}
