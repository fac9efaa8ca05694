// Who is signed in: {project_id, key_id, name, role}, and what the role allows.

import { createContext } from "preact";
import { useContext } from "preact/hooks";

export const Who = createContext(null);

const ROLES = ["viewer", "member", "admin", "operator"]; // each may do all that the ones before it may

/** Who is signed in, with `may(role)`: whether they have at least that role. */
export function useWho() {
  const who = useContext(Who);
  return { ...who, may: (role) => ROLES.indexOf(who.role) >= ROLES.indexOf(role) };
}
