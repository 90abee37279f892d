"""Speed of the engine beside others, on one machine, in one run: `make bench`.

`checkpoint` writes random models; `contenders/` holds one small program per engine, each run in its own process by
`rounds`, which lets them take turns; `bandwidth` measures what the memory allows; `report` turns it into a table and a
result file. Nothing here is imported by the package.
"""
