"""`make soak`: what the server keeps over time. Fairness, flatness, and that the same request has the same answer."""
