"""Train what the JSON file says, one run after another; for torchrun, not collected by pytest.

Each process has a folder of its own, as machines have that share no disk.
"""

import json
import os
import sys
from pathlib import Path

from attnvgg.cli.train_bags import main

if __name__ == "__main__":
    plan, out = Path(sys.argv[1]), Path(sys.argv[2]) / f"process-{os.environ['RANK']}"
    for name, options in json.loads(plan.read_text()).items():
        code = main([*options, f"--out={out}", f"--name={name}"])
        if code:
            sys.exit(code)
