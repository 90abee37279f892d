// Every sampling knob, read from the server's own description: name, range, meaning.

const NOT_HERE = new Set(["n", "top_logprobs", "best_of", "priority"]);

export async function makeKnobs(client, fieldset, defaults) {
  const document_ = await client.get("openapi.json");
  const schema = findRequest(document_);
  const inputs = new Map();
  for (const [name, property] of Object.entries(schema.properties)) {
    const kind = numberOf(property);
    if (!kind || NOT_HERE.has(name)) continue;
    const label = document.createElement("label");
    label.textContent = name;
    label.title = property.description ?? "";
    const input = document.createElement("input");
    Object.assign(input, { type: "number", name, step: kind.type === "integer" ? 1 : "any" });
    if (kind.minimum !== undefined) input.min = kind.minimum;
    if (kind.maximum !== undefined) input.max = kind.maximum;
    input.placeholder = defaults[name] ?? property.default ?? "";
    input.setAttribute("aria-description", label.title);
    label.append(input);
    fieldset.append(label);
    inputs.set(name, input);
  }
  return () => {
    const chosen = {};
    for (const [name, input] of inputs) if (input.value !== "") chosen[name] = Number(input.value);
    return chosen;
  };
}

function findRequest(document_) {
  let schema = document_.paths["/v1/chat/completions"].post.requestBody.content["application/json"].schema;
  while (schema.$ref) schema = schema.$ref.slice(2).split("/").reduce((at, part) => at[part], document_);
  return schema;
}

function numberOf(property) {
  const kinds = [property, ...(property.anyOf ?? [])];
  return kinds.find((kind) => kind.type === "number" || kind.type === "integer");
}
