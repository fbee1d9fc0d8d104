"""Compare the graph that zoo writes of a checkpoint, in ONNX Runtime, with transformers in float32, over lengths 4 to 512.

    check_graph.py [FOLDER]           default: the folder above this script
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from transformers import AutoModelForSequenceClassification
from zoo_direct.build import write_graph

TOLERANCE = 1e-4


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    model, report = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    if any(report.values()):
        raise SystemExit(f"keys do not match: {report}")
    settings = ort.SessionOptions()
    settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    graph = write_graph(folder, form="onnxruntime", head={"kind": "label"})
    session = ort.InferenceSession(graph.model, settings, providers=["CPUExecutionProvider"])
    for item in [*session.get_inputs(), *session.get_outputs()]:
        print(item.name, item.type, item.shape)
    rng = np.random.default_rng(0)
    worst = 0.0
    for length in (4, 5, 8, 17, 64, 127, 256, 511, 512):
        for batch in (1, 3):
            ids = rng.integers(4, model.config.vocab_size - 1, (batch, length))
            ids[:, 0], ids[:, -1] = 0, 2
            mask = np.ones_like(ids)
            for row in range(1, batch):  # right padding
                cut = int(rng.integers(2, length + 1))
                ids[row, cut:], mask[row, cut:] = 1, 0
            (ours,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
            with torch.no_grad():
                theirs = model.float().eval()(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask)).logits.numpy()
            worst = max(worst, float(np.abs(ours - theirs).max()))
            if ours.dtype != np.float32 or ours.shape != (batch, 1):
                raise SystemExit(f"output is {ours.dtype} {ours.shape}")
    print(f"largest difference {worst:.2e}")
    raise SystemExit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
