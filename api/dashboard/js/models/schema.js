// From the published JSON schema of a run's configuration to the fields of a form, and back to a configuration.
// Pure; knows nothing of the page.

/**
 * @typedef {{ type?: string, title?: string, description?: string, default?: any, enum?: any[], const?: any,
 *   minimum?: number, maximum?: number, exclusiveMinimum?: number, exclusiveMaximum?: number, $ref?: string,
 *   anyOf?: Schema[], allOf?: Schema[], items?: Schema, maxItems?: number, properties?: Record<string, Schema>, $defs?: Record<string, Schema> }} Schema
 * @typedef {{ path: string, name: string, group: string, kind: "number" | "integer" | "boolean" | "choice" | "text" | "integers",
 *   description: string, initial: any, choices: any[], minimum: number | undefined, maximum: number | undefined,
 *   optional: boolean }} Field
 */

/** @param {Schema} schema @param {Schema} root @returns {Schema} the schema behind references and single wrappers */
function resolve(schema, root) {
  let found = schema;
  for (let depth = 0; depth < 8; depth += 1) {
    if (found.$ref) {
      const target = root.$defs?.[found.$ref.split("/").pop() ?? ""] ?? {};
      const { $ref, ...own } = found;
      found = { ...target, ...own };
    } else if (found.allOf?.length === 1) {
      const { allOf, ...own } = found;
      found = { ...allOf[0], ...own };
    } else break;
  }
  return found;
}

/** @param {Schema} schema @param {Schema} root @returns {{ schema: Schema, optional: boolean }} */
function unwrapOptional(schema, root) {
  const found = resolve(schema, root);
  const options = (found.anyOf ?? []).map((option) => resolve(option, root));
  const rest = options.filter((option) => option.type !== "null");
  if (options.length === 0 || rest.length !== 1) return { schema: found, optional: false };
  const { anyOf, ...own } = found;
  return { schema: { ...rest[0], ...own, type: rest[0].type }, optional: rest.length < options.length };
}

/** @param {Schema} schema @returns {Schema | undefined} the integer of a union of an integer and a list of them */
function integersIn(schema) {
  const options = schema.anyOf ?? [];
  const list = options.some((option) => option.type === "array" && option.items?.type === "integer");
  return options.length === 2 && list ? options.find((option) => option.type === "integer") : undefined;
}

/** @param {Schema} schema @returns {Field["kind"] | null} null where a form cannot show it */
function kindOf(schema) {
  if (schema.enum) return "choice";
  if (schema.type === "integer" || schema.type === "number" || schema.type === "boolean") return schema.type;
  if (schema.type === "string") return "text";
  if (integersIn(schema)) return "integers";
  return null;
}

/**
 * List the fields of a configuration, nested objects as groups, in the order of the schema.
 * @param {Schema} root @returns {Field[]}
 */
export function fieldsOf(root) {
  /** @type {Field[]} */
  const fields = [];
  /** @param {Schema} node @param {string} prefix @param {string} group */
  const walk = (node, prefix, group) => {
    for (const [name, raw] of Object.entries(node.properties ?? {})) {
      const { schema, optional } = unwrapOptional(raw, root);
      const path = prefix ? `${prefix}.${name}` : name;
      if (schema.properties) {
        walk(schema, path, name);
        continue;
      }
      const kind = kindOf(schema);
      if (kind === null) continue;
      fields.push({
        path, name, group, kind, optional,
        description: schema.description ?? "",
        initial: schema.default ?? (optional ? null : ""),
        choices: schema.enum ?? [],
        minimum: schema.minimum ?? schema.exclusiveMinimum ?? integersIn(schema)?.minimum,
        maximum: schema.maximum ?? schema.exclusiveMaximum,
      });
    }
  };
  walk(root, "", "");
  return fields;
}

/**
 * Read a field's text as its value.
 * @param {Field} field @param {string | boolean} text
 * @returns {{ value?: any, problem?: string }} exactly one of the two
 */
export function readField(field, text) {
  if (field.kind === "boolean") return { value: text === true || text === "true" };
  const trimmed = String(text).trim();
  if (trimmed === "" && field.optional) return { value: null };
  if (field.kind === "text") return { value: trimmed };
  if (field.kind === "choice") {
    const choice = field.choices.find((option) => String(option) === trimmed);
    return choice === undefined ? { problem: `one of ${field.choices.join(", ")}` } : { value: choice };
  }
  if (field.kind === "integers") return readIntegers(field, trimmed);
  return readNumber(field, trimmed);
}

/** @param {Field} field @param {string} text one whole number, or several with commas @returns {{ value?: any, problem?: string }} */
function readIntegers(field, text) {
  const parts = text.replace(/^\[|\]$/g, "").split(",").map((part) => readNumber({ ...field, kind: "integer" }, part.trim()));
  const wrong = parts.find((part) => part.problem !== undefined);
  if (wrong) return { problem: `${wrong.problem}, or several with commas` };
  return { value: parts.length === 1 ? parts[0].value : parts.map((part) => part.value) };
}

/** @param {Field} field @param {string} trimmed @returns {{ value?: any, problem?: string }} */
function readNumber(field, trimmed) {
  const number = trimmed === "" ? NaN : Number(trimmed);
  if (!Number.isFinite(number)) return { problem: "a number" };
  if (field.kind === "integer" && !Number.isInteger(number)) return { problem: "a whole number" };
  if (field.minimum !== undefined && number < field.minimum) return { problem: `at least ${field.minimum}` };
  if (field.maximum !== undefined && number > field.maximum) return { problem: `at most ${field.maximum}` };
  return { value: number };
}

/**
 * Build the configuration from edited fields only, so that the server's defaults stay the server's.
 * @param {Field[]} fields @param {Record<string, string | boolean>} edits text by path
 * @returns {{ config: Record<string, any>, problems: Record<string, string> }}
 */
export function buildConfig(fields, edits) {
  /** @type {Record<string, any>} */
  const config = {};
  /** @type {Record<string, string>} */
  const problems = {};
  for (const field of fields) {
    if (!(field.path in edits)) continue;
    const { value, problem } = readField(field, edits[field.path]);
    if (problem !== undefined) {
      problems[field.path] = problem;
    } else if (value !== field.initial) {
      const parts = field.path.split(".");
      const last = /** @type {string} */ (parts.pop());
      let node = config;
      for (const part of parts) node = node[part] ??= {};
      node[last] = value;
    }
  }
  return { config, problems };
}

/**
 * Show the hyperparameters that a preset stands for instead of the schema's defaults.
 * @param {Field[]} fields @param {Record<string, any> | undefined} preset values by name @returns {Field[]}
 */
export function withPreset(fields, preset) {
  if (!preset) return fields;
  return fields.map((field) => (field.path === `hyp.${field.name}` && field.name in preset ? { ...field, initial: preset[field.name] } : field));
}
