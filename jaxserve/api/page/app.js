// The page: a conversation with the served model, with everything that can be set in view.

import { Answer } from "./answer.js";
import { TOOL, run } from "./calculator.js";
import { Client } from "./client.js";
import { makeKnobs } from "./knobs.js";
import { Lens } from "./lens.js";

const MOST_CALLS = 4; // in a row, before the demo gives up
const at = (id) => document.getElementById(id);
const client = new Client();
const lens = new Lens(at("rivals"), resample);
const history = [];
let model = null;
let knobs = () => ({});
let running = null;

at("key").value = sessionStorage.getItem("key") ?? "";
at("key").addEventListener("change", connect);
at("toggle").addEventListener("click", () => {
  at("toggle").setAttribute("aria-expanded", String(at("settings").classList.toggle("open")));
});
at("form").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
at("input").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(); }
});
at("stop").addEventListener("click", () => running?.abort());
at("clear").addEventListener("click", clear);
document.addEventListener("keydown", (event) => { if (event.key === "Escape") running?.abort(); });
connect();

async function connect() {
  client.key = at("key").value;
  sessionStorage.setItem("key", client.key);
  try {
    model = (await client.get("v1/models")).data[0];
    const facts = [`context ${model.context_length}`, `vocabulary ${model.vocab_size}`];
    at("facts").textContent = [model.id, ...facts, model.supports_chat ? "" : "no chat template: text is continued"]
      .filter(Boolean).join(" · ");
    if (at("knobs").children.length === 1) knobs = await makeKnobs(client, at("knobs"), model.sampling_defaults ?? {});
  } catch (error) {
    at("facts").textContent = error.message;
  }
}

function ask() {
  const text = at("input").value.trim();
  if (!text || running || !model) return;
  at("input").value = "";
  show("user", text);
  history.push({ role: "user", content: text });
  work(() => (model.supports_chat ? converse() : carryOn(text)));
}

async function converse() {
  for (let round = 0; round < MOST_CALLS; round++) {
    const answer = new Answer(at("messages"), at("lens").checked ? lens : null);
    await receive(answer, "v1/chat/completions", { ...shared(), messages: conversation(), ...wishes() });
    history.push(answer.message());
    if (!answer.calls.length) return;
    for (const call of answer.calls) {
      const result = run(call.function.arguments);
      show("call", `${call.function.name}(${call.function.arguments}) = ${result}`);
      history.push({ role: "tool", tool_call_id: call.id, content: result });
    }
  }
}

function carryOn(text) {
  const answer = new Answer(at("messages"), at("lens").checked ? lens : null);
  return receive(answer, "v1/completions", { ...shared(), prompt: text, max_tokens: knobs().max_tokens ?? 200 });
}

// Goes on from a token of an answer with one of its rivals: the same tokens up to there, then that one.
function resample(answer, position, rival) {
  if (running) return;
  const kept = answer.tokens.slice(0, position);
  const ids = [...answer.promptIds, ...kept.map((entry) => entry.token_id), rival.token_id];
  const other = new Answer(at("messages"), lens);
  other.promptIds = answer.promptIds;
  other.take({ text: [...kept, rival].map((entry) => entry.token).join(""), logprobs: { content: [...kept, rival] } });
  const body = { ...shared(), prompt: ids, max_tokens: knobs().max_tokens ?? 200, raw_output: false };
  work(() => receive(other, "v1/completions", body));
}

function shared() {
  const seen = at("lens").checked ? { logprobs: true, top_logprobs: 5 } : {};
  return { model: model.id, ...knobs(), ...seen, raw_output: true, perf_metrics_in_response: true };
}

function wishes() {
  const schema = at("schema").value.trim();
  if (schema) {
    return { response_format: { type: "json_schema", json_schema: { name: "answer", schema: JSON.parse(schema) } } };
  }
  return at("tools").checked ? { tools: [TOOL] } : {};
}

function conversation() {
  const system = at("system").value.trim();
  return system ? [{ role: "system", content: system }, ...history] : history;
}

async function receive(answer, path, body) {
  const begun = performance.now();
  let first = null;
  for await (const chunk of client.stream(path, body, running.signal)) {
    first ??= performance.now();
    for (const choice of chunk.choices) answer.take(choice);
    if (chunk.usage) report(chunk, begun, first);
    at("messages").scrollTop = at("messages").scrollHeight;
  }
}

function report(chunk, begun, first) {
  const seconds = (performance.now() - first) / 1000;
  const { prompt_tokens: prompt, completion_tokens: made, prompt_tokens_details: details } = chunk.usage;
  const parts = [
    `${prompt} prompt tokens (${details?.cached_tokens ?? 0} cached)`,
    `${made} tokens`,
    `first after ${((first - begun) / 1000).toFixed(2)} s`,
    seconds > 0 && made > 1 ? `${((made - 1) / seconds).toFixed(1)} tokens/s` : "",
  ];
  at("metrics").textContent = parts.filter(Boolean).join(" · ");
  at("metrics").title = JSON.stringify(chunk.perf_metrics ?? {}, null, 1);
}

async function work(task) {
  running = new AbortController();
  at("send").disabled = true;
  at("stop").disabled = false;
  try {
    await task();
  } catch (error) {
    if (error.name !== "AbortError") show("error", error.message);
  } finally {
    running = null;
    at("send").disabled = false;
    at("stop").disabled = true;
    at("input").focus();
  }
}

function show(kind, text) {
  const element = document.createElement("div");
  element.className = `message ${kind}`;
  element.textContent = text;
  at("messages").append(element);
  at("messages").scrollTop = at("messages").scrollHeight;
}

function clear() {
  running?.abort();
  history.length = 0;
  at("messages").replaceChildren();
  at("metrics").textContent = "";
  at("input").focus();
}
