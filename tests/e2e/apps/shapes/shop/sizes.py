"""A neighbour that is imported relatively, with data of its own."""

import json
from pathlib import Path

SIZES = json.loads(Path(__file__).with_name("sizes.json").read_text())
