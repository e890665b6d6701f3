"""Where the repository's files are."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SUPPORT = ROOT / "tests" / "support"
GOLDEN = ROOT / "tests" / "data" / "golden"  # reference numbers; README.md there
