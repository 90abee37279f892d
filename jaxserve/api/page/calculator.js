// The demo's tool: arithmetic without eval, which the page's policy forbids anyway.

export const TOOL = {
  type: "function",
  function: {
    name: "calculate",
    description: "Evaluates an arithmetic expression of numbers, + - * / and parentheses.",
    parameters: {
      type: "object",
      properties: { expression: { type: "string", description: "for example (2 + 3) * 4" } },
      required: ["expression"],
      additionalProperties: false,
    },
  },
};

export function run(argumentsText) {
  try {
    return String(evaluate(JSON.parse(argumentsText).expression));
  } catch (error) {
    return `error: ${error.message}`;
  }
}

export function evaluate(text) {
  const tokens = text.match(/\d+(?:\.\d+)?|[-+*/()]/g) ?? [];
  if (tokens.join("") !== text.replace(/\s+/g, "")) throw new Error("not an arithmetic expression");
  const sum = () => chain(product, { "+": (a, b) => a + b, "-": (a, b) => a - b });
  const product = () => chain(factor, { "*": (a, b) => a * b, "/": (a, b) => a / b });
  const chain = (part, operators) => {
    let value = part();
    while (tokens[0] in operators) value = operators[tokens.shift()](value, part());
    return value;
  };
  const factor = () => {
    const token = tokens.shift();
    if (token === "-") return -factor();
    if (token === "(") {
      const value = sum();
      if (tokens.shift() !== ")") throw new Error("a parenthesis is missing");
      return value;
    }
    if (token === undefined || Number.isNaN(Number(token))) throw new Error("a number is missing");
    return Number(token);
  };
  const value = sum();
  if (tokens.length) throw new Error(`${tokens[0]} is too much`);
  return value;
}
