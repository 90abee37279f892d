// One answer on the page: reasoning, text (plain or as tokens), calls.

export class Answer {
  text = "";
  reasoning = "";
  calls = [];
  tokens = [];
  promptIds = [];
  decoder = new TextDecoder();

  constructor(container, lens) {
    this.lens = lens;
    this.element = document.createElement("div");
    this.element.className = "message assistant";
    this.body = document.createElement("span");
    this.element.append(this.body);
    container.append(this.element);
  }

  // Takes a chunk's choice, of either endpoint.
  take(choice) {
    const delta = choice.delta ?? { content: choice.text };
    if (delta.reasoning_content) this.#think(delta.reasoning_content);
    if (delta.content) this.text += delta.content;
    for (const call of delta.tool_calls ?? []) this.#call(call);
    if (choice.raw_output?.prompt_token_ids) this.promptIds = choice.raw_output.prompt_token_ids;
    const entries = choice.logprobs?.content ?? [];
    if (this.lens && entries.length) this.#show(entries, delta.content ?? "");
    else if (delta.content) this.body.append(delta.content);
  }

  message() {
    const message = { role: "assistant", content: this.text };
    return this.calls.length ? { ...message, content: this.text || null, tool_calls: this.calls } : message;
  }

  // Characters of several tokens appear with their last one; markers that aren't part of the text, as a dot.
  #show(entries, text) {
    for (const entry of entries) {
      const marker = /^<.+>$/.test(entry.token) && !text.includes(entry.token);
      const shown = marker ? "" : this.decoder.decode(new Uint8Array(entry.bytes), { stream: true });
      this.body.append(this.lens.token(entry, shown, this, this.tokens.length));
      this.tokens.push(entry);
    }
  }

  #think(text) {
    this.reasoning += text;
    if (!this.fold) {
      this.fold = document.createElement("details");
      const summary = document.createElement("summary");
      summary.textContent = "reasoning";
      this.thought = document.createElement("span");
      this.fold.append(summary, this.thought);
      this.element.prepend(this.fold);
    }
    this.thought.textContent = this.reasoning;
  }

  #call(piece) {
    const call = (this.calls[piece.index] ??= { id: "", type: "function", function: { name: "", arguments: "" } });
    if (piece.id) call.id = piece.id;
    if (piece.function?.name) call.function.name = piece.function.name;
    call.function.arguments += piece.function?.arguments ?? "";
  }
}
