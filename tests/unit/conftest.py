"""Unit tests run without Ray, one torch thread each by default, and may import the helpers that lie beside them."""

import os
import sys
from pathlib import Path

import torch

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
sys.path.insert(0, str(Path(__file__).parent / "training"))
