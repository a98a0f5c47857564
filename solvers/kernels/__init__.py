"""Everything that is compiled: arrays in, arrays out.

libgomp's threads spin while they wait. On a machine shared with other work a spinning thread keeps the one it waits for off the
processor: measured 8 us -> 16 ms for a loop of 2000 cells on two busy cores. So they are told to sleep, unless the user says otherwise.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
