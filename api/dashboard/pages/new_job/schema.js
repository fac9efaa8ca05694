// The JSON schema of a job, read for a form: what kind of value a field takes, and drafts to specifications and back.

/** The schema with its reference resolved; what stands beside the reference wins. */
export function resolve(schema, root) {
  if (!schema.$ref) return schema;
  const { $ref, ...beside } = schema;
  return { ...root.$defs[$ref.split("/").at(-1)], ...beside };
}

/**
 * A field of the job by its dotted path: {path, kind, title, description, unit, default, nullable, ...}.
 * kind: text, number, integer, boolean, choice {choices}, model, words, map, losses, object {fields} or
 * variant {variants: [{type, fields}]}.
 */
export function fieldAt(path, root) {
  let schema = root;
  let parent = root;
  const names = path.split(".");
  for (const name of names) [parent, schema] = [schema, resolve(schema.properties[name], root)];
  const field = described(path, schema, root);
  if (names.length < 3) return field;
  // workers of the policy are told from those of the reference by what they belong to
  return { ...field, title: `${parent.title} ${uncapitalised(field.title)}`, description: `${parent.description} ${field.description}` };
}

const uncapitalised = (title) => (/^[A-Z][a-z]/.test(title) ? title[0].toLowerCase() + title.slice(1) : title);

function described(path, schema, root) {
  const nullable = schema.anyOf?.some(({ type }) => type === "null") ?? false;
  const others = schema.anyOf?.filter(({ type }) => type !== "null").map((one) => resolve(one, root)) ?? [];
  const shape = others.length === 1 ? { ...others[0], ...schema, type: others[0].type } : schema;
  const field = {
    path,
    nullable,
    title: schema.title ?? path.split(".").at(-1),
    description: schema.description ?? "",
    unit: schema.unit,
    default: schema.default,
  };
  return { ...field, ...kindOf(path, shape, others.length > 1, root) };
}

function kindOf(path, shape, mixed, root) {
  if (path === "losses") return { kind: "losses" };
  if (shape.oneOf && shape.discriminator) {
    const variants = Object.entries(shape.discriminator.mapping).map(([type, $ref]) => {
      const member = resolve({ $ref }, root);
      return { type, description: member.description, fields: fieldsOf(path, member, root) };
    });
    return { kind: "variant", variants };
  }
  if (mixed || shape.type === "array") return { kind: "words" };
  if (shape.enum) return { kind: "choice", choices: shape.enum };
  if (shape.properties?.source) return { kind: "model" };
  if (shape.properties) return { kind: "object", fields: fieldsOf(path, shape, root) };
  if (shape.type === "object") return { kind: "map" };
  if (shape.type === "number" || shape.type === "integer") return { kind: shape.type };
  return { kind: shape.type === "boolean" ? "boolean" : "text", maxLength: shape.maxLength };
}

const fieldsOf = (path, schema, root) =>
  Object.entries(schema.properties)
    .filter(([name]) => name !== "type")
    .map(([name, inner]) => described(`${path}.${name}`, resolve(inner, root), root));

/** The options of a loss by its type. */
export const lossFields = (type, root) => {
  const mapping = root.properties.losses.items.discriminator.mapping;
  return fieldsOf("losses", resolve({ $ref: mapping[type] }, root), root);
};

/** draft: what was set, by dotted path. The specification has that and nothing else: defaults are the API's. */
export function specOf(draft) {
  const spec = {};
  for (const [path, value] of Object.entries(draft)) {
    if (value === undefined) continue;
    const names = path.split(".");
    const last = names.pop();
    let inner = spec;
    for (const name of names) inner = inner[name] ??= {};
    inner[last] = value;
  }
  return spec;
}

/** The draft that says the same as a stored specification, in which every default is filled in. */
export function draftOf(spec, paths, root) {
  const draft = {};
  for (const path of paths) {
    const field = fieldAt(path, root);
    const value = path.split(".").reduce((inner, name) => inner?.[name], spec);
    if (isEmpty(value) || same(value, field.default)) continue;
    if (field.kind === "model") draft[path] = value.weights === "pretrained" ? value.source : value;
    else if (field.kind === "losses") draft[path] = value.map((term) => changed(term, lossFields(term.type, root)));
    else if (field.kind === "variant") {
      const { fields } = field.variants.find(({ type }) => type === value.type);
      const set = changed(value, fields);
      if (Object.keys(set).length > 1 || value.type !== field.variants[0].type) draft[path] = set;
    } else if (field.kind !== "map" || Object.keys(value).length > 0) draft[path] = value;
  }
  return draft;
}

function changed(value, fields) {
  const set = { type: value.type };
  for (const { path, default: start } of fields) {
    const name = path.split(".").at(-1);
    if (!isEmpty(value[name]) && !same(value[name], start)) set[name] = value[name];
  }
  return set;
}

/** What a default that is made anew each time, and so is not in the schema, is here. */
const isEmpty = (value) => value === null || value === undefined || (Array.isArray(value) && value.length === 0);

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

/** The merge patch (RFC 7396) that makes `to` of `from`; what `to` does not say goes back to its default. */
export function patchOf(from, to) {
  const patch = {};
  for (const name in from) if (!(name in to)) patch[name] = null;
  for (const [name, value] of Object.entries(to)) {
    if (isObject(value) && isObject(from[name])) patch[name] = patchOf(from[name], value);
    else if (!same(value, from[name])) patch[name] = value;
  }
  return patch;
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
