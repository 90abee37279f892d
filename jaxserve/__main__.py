"""`python -m jaxserve`."""

from jaxserve.cli import main

main()
