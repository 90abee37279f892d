// The server's API, as this page uses it: relative URLs, one key, server-sent events.

export class ServerError extends Error {}

export class Client {
  key = "";

  headers() {
    const headers = { "Content-Type": "application/json" };
    return this.key ? { ...headers, Authorization: `Bearer ${this.key}` } : headers;
  }

  async get(path) {
    return (await this.#checked(await fetch(path, { headers: this.headers() }))).json();
  }

  // Yields the chunks of a streamed answer.
  async *stream(path, body, signal) {
    const options = { method: "POST", headers: this.headers(), body: JSON.stringify({ ...body, stream: true }), signal };
    const response = await this.#checked(await fetch(path, options));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const data = event.replace(/^data: /, "");
        if (data === "[DONE]") return;
        if (!event.startsWith("data: ")) continue; // a comment that keeps the connection open
        const chunk = JSON.parse(data);
        if (chunk.error) throw new ServerError(chunk.error.message);
        yield chunk;
      }
    }
  }

  async #checked(response) {
    if (response.ok) return response;
    let message = `${response.status} ${response.statusText}`;
    try {
      message = (await response.json()).error.message;
    } catch { /* not the server's own words */ }
    throw new ServerError(message);
  }
}
