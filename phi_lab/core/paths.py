"""Where the repository's own files are: shipped data, checkpoints and notebooks."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
WORDS = DATA / "words.txt"  # the text from which the tokenizer was trained
TOKENIZER = DATA / "tokenizer"
BENCHMARKS = DATA / "benchmarks"
TEACHER = DATA / "teacher"
SHIPPED = DATA / "checkpoints"  # one model folder a stage
DISTILLED = DATA / "distilled"  # the shipped teacher's rollouts
NOTEBOOKS = ROOT / "notebooks"
