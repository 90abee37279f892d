// The token lens: each token coloured by its probability, its rivals on demand, and another way from any of them.

export class Lens {
  constructor(popover, onChoose) {
    this.popover = popover;
    this.onChoose = onChoose;
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") this.close(); });
    document.addEventListener("click", (event) => { if (!event.target.closest(".token, #rivals")) this.close(); });
  }

  // A token as an element that shows a text; `position` is its place among the answer's tokens.
  token(entry, shown, answer, position) {
    const probability = Math.exp(entry.logprob);
    const span = document.createElement("span");
    Object.assign(span, { className: "token", textContent: shown, tabIndex: 0 });
    span.title = `${JSON.stringify(entry.token)} ${(100 * probability).toFixed(1)} %`;
    span.setAttribute("role", "button");
    span.style.setProperty("background", `hsl(${120 * probability} 80% 45% / .3)`);
    const show = () => this.open(span, entry, answer, position);
    span.addEventListener("click", show);
    span.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); show(); } });
    return span;
  }

  open(span, entry, answer, position) {
    const hint = document.createElement("p");
    hint.textContent = "go on from here with";
    const rivals = entry.top_logprobs?.length ? entry.top_logprobs : [entry];
    this.popover.replaceChildren(hint, ...rivals.map((rival) => this.#rival(rival, answer, position)));
    const { left, bottom } = span.getBoundingClientRect();
    this.popover.style.setProperty("left", `${Math.min(left, innerWidth - 240)}px`);
    this.popover.style.setProperty("top", `${Math.min(bottom + 4, innerHeight - 220)}px`);
    this.popover.showPopover();
    this.popover.querySelector("button").focus();
  }

  close() {
    if (this.popover.matches(":popover-open")) this.popover.hidePopover();
  }

  #rival(rival, answer, position) {
    const button = document.createElement("button");
    const text = document.createElement("span");
    const share = document.createElement("span");
    text.textContent = JSON.stringify(rival.token);
    share.textContent = `${(100 * Math.exp(rival.logprob)).toFixed(1)} %`;
    button.append(text, share);
    button.addEventListener("click", () => { this.close(); this.onChoose(answer, position, rival); });
    return button;
  }
}
