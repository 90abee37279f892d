"""One model over several hosts: who belongs to the group, and the connections that step commands travel on.

Host 0 schedules and serves; the others execute the commands that it sends, each on its own devices, and the devices
meet in the programs' collectives. Beneath `startup`, which loads and compiles on every host alike.
"""
