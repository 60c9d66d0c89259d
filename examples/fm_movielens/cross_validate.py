"""Submit the example once for each of the five folds and print the mean RMSE.

``python cross_validate.py [options of pl_submit] [APP]``; APP is the fm.py beside this file
unless given.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDS = 5


def main() -> int:
    """Run the folds one after another; stop at the first that fails, with its exit code."""
    arguments = sys.argv[1:]
    if not (arguments and arguments[-1].endswith(".py")):
        arguments.append(str(Path(__file__).with_name("fm.py")))
    *options, app = arguments
    submit = str(Path(sys.executable).with_name("pl_submit"))
    errors = []
    with tempfile.TemporaryDirectory() as directory:
        for fold in range(FOLDS):
            record = Path(directory, f"fold-{fold}.json")
            fold_options = ["-p", f"fold={fold}", "--result-json", str(record)]
            command = [submit, *options, *fold_options, app]
            code = subprocess.run(command, check=False).returncode
            if code != 0:
                return code
            errors.append(json.loads(record.read_text())["result"]["rmse"])
            print(f"fold {fold}: RMSE {errors[-1]:.4f}", flush=True)
    print(f"mean RMSE of {FOLDS} folds: {statistics.mean(errors):.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
