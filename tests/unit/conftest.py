"""Unit tests run without Ray, one torch thread each, and may import the helpers that lie beside them."""

import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parent / "training"))
