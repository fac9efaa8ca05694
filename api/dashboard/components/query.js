// The query of the address as the state of a page: what is filtered or chosen survives a reload and can be sent on.

import { useLocation } from "preact-iso/router";
import { useMemo } from "preact/hooks";

/**
 * [params, change]: the address's URLSearchParams, and `change({name: value})`, which sets some of them; null, "" and
 * [] remove one, and a list sets it several times. replace: without a step in the browser's history, as while typing.
 */
export function useQuery() {
  const { url, path, route } = useLocation();
  const search = url.split("#")[0].split("?")[1] ?? "";
  const params = useMemo(() => new URLSearchParams(search), [search]);
  const change = (changes, { replace = false } = {}) => {
    const next = new URLSearchParams(location.search);
    for (const [name, value] of Object.entries(changes)) {
      next.delete(name);
      for (const one of [value].flat()) if (one !== null && one !== undefined && one !== "") next.append(name, one);
    }
    const text = next.toString();
    route(text ? `${path}?${text}` : path, replace);
  };
  return [params, change];
}
