"""Talk to a running server: `make serve` in one terminal, `python examples/chat.py` in another."""

from __future__ import annotations

import sys

from openai import OpenAI


def main() -> None:
    base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1"
    client = OpenAI(base_url=base_url, api_key="none")
    model = client.models.list().data[0].id
    messages: list[dict[str, str]] = []
    while True:
        try:
            question = input("you> ")
        except EOFError:
            return
        messages.append({"role": "user", "content": question})
        answer = ""
        stream = client.chat.completions.create(model=model, messages=messages, max_tokens=300, stream=True)
        for chunk in stream:
            text = chunk.choices[0].delta.content or ""
            answer += text
            print(text, end="", flush=True)
        print()
        messages.append({"role": "assistant", "content": answer})


if __name__ == "__main__":
    main()
