"""The embedded model's training scripts at a very small size, on the CPU: what they compute, and that a resumed run repeats a whole one."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
SCRIPTS = Path(__file__).resolve().parent.parent / "models" / "zoo-reranker-tiny" / "train"
if not SCRIPTS.is_dir():
    pytest.skip("the training scripts are not part of an installed package", allow_module_level=True)
HIDDEN, PIECES, LAYERS = 96, 200, 8


def _script(name: str) -> ModuleType:
    sys.path.insert(0, str(SCRIPTS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.npz and teacher.npz: random texts, queries cut out of them, and a random teacher."""
    folder = tmp_path_factory.mktemp("training")
    rng = np.random.default_rng(0)
    tokens, passages, queries, anchors = [], [], [], []
    for _ in range(130):
        start = sum(map(len, tokens))
        text = rng.integers(7, PIECES, rng.integers(12, 40))
        tokens.append(text)
        passages.append((start, len(text)))
        queries.append(text[3:9])
        anchors.append((start + 2, start + 10))
    count = len(passages)
    np.savez(
        folder / "data.npz",
        tokens=np.concatenate(tokens).astype(np.uint16),
        passage_start=np.array([s for s, _ in passages], np.uint32),
        passage_length=np.array([n for _, n in passages], np.uint16),
        passage_language=np.zeros(count, np.uint8),
        passage_kind=np.zeros(count, np.uint8),
        query_tokens=np.concatenate(queries).astype(np.uint16),
        query_length=np.array([len(q) for q in queries], np.uint8),
        query_kind=np.zeros(count, np.uint8),
        query_language=np.zeros(count, np.uint8),
        query_held=np.arange(count) % 5 == 0,
        query_passages=np.stack([np.arange(count), np.full(count, -1), np.full(count, -1)], 1).astype(np.int32),
        anchor=np.array(anchors, np.uint32),
        languages=np.array(["en"]),
        kinds=np.array(["run"]),
        ask=np.array([5]),
        tell=np.array([6]),
    )
    teacher: dict[str, np.ndarray] = {
        "emb.word": rng.normal(size=PIECES * HIDDEN),
        "emb.pos": rng.normal(size=512 * HIDDEN) * 0.3,
    }
    teacher |= {"emb.type": np.zeros(2 * HIDDEN), "emb.ln.w": np.ones(HIDDEN), "emb.ln.b": np.zeros(HIDDEN)}
    for n in range(LAYERS):
        shapes = {"q": HIDDEN, "k": HIDDEN, "v": HIDDEN, "ao": HIDDEN, "fi": 2 * HIDDEN, "fo": HIDDEN}
        for part, width in shapes.items():
            fan_in = 2 * HIDDEN if part == "fo" else HIDDEN
            teacher |= {
                f"l{n}.{part}.w": rng.normal(size=width * fan_in) * fan_in**-0.5,
                f"l{n}.{part}.b": np.zeros(width),
            }
        for part in ("aln", "oln"):
            teacher |= {f"l{n}.{part}.w": np.ones(HIDDEN), f"l{n}.{part}.b": np.zeros(HIDDEN)}
    narrow = np.arange(0, PIECES, 2)
    arrays = {name: value.astype(np.float16) for name, value in teacher.items()}
    np.savez(
        folder / "teacher.npz",
        **arrays,
        narrow=narrow.astype(np.int32),
        spelled=np.repeat(np.arange(PIECES) // 2, 1 + np.arange(PIECES) % 2).astype(np.uint16),
        spelled_lengths=(1 + np.arange(PIECES) % 2).astype(np.uint8),
    )
    return folder


def _train(folder: Path, out: Path, *options: str) -> list[dict]:
    """The rows that a run adds to its log."""
    log = out / "log.jsonl"
    before = len(log.read_text().splitlines()) if log.exists() else 0
    command = [
        sys.executable,
        str(SCRIPTS / "train.py"),
        "--data",
        str(folder / "data.npz"),
        "--teacher",
        str(folder / "teacher.npz"),
    ]
    command += [
        "--out",
        str(out),
        "--mined",
        str(folder / "mined.pt"),
        "--device",
        "cpu",
        "--groups",
        "6",
        "--log-every",
        "1",
    ]
    command += ["--warmup", "3", "--evaluate", "20", *options]
    subprocess.run(command, check=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return [json.loads(line) for line in log.read_text().splitlines()[before:]]


def _losses(rows: list[dict]) -> list[tuple[str, int, int, float]]:
    return [(row["phase"], row["seed"], row["step"], row["loss"]) for row in rows if "loss" in row]


def test_a_run_that_goes_on_from_its_checkpoint_does_as_it_would_have_done(folder: Path, tmp_path: Path) -> None:
    plan = ("--shape", "nano", "--steps", "12", "--seeds", "1,2", "--trunk", "0.5", "--save-every", "3")
    whole = _train(folder, tmp_path / "whole", *plan)
    parts = _train(folder, tmp_path / "parts", *plan, "--stop", "4")
    parts += _train(folder, tmp_path / "parts", *plan, "--resume")
    assert len(_losses(whole)) == 12
    assert _losses(parts) == _losses(whole)
    assert (tmp_path / "parts" / "nano.0").read_bytes() == (tmp_path / "whole" / "nano.0").read_bytes()


def test_training_teaches_what_the_teacher_and_bm25_prefer(folder: Path, tmp_path: Path) -> None:
    rows = _train(
        folder, tmp_path, "--shape", "nano", "--steps", "150", "--seeds", "1", "--log-every", "10", "--lr", "2e-3"
    )
    losses = [loss for *_, loss in _losses(rows)]
    assert np.mean(losses[-3:]) < 0.8 * losses[0]


@pytest.mark.filterwarnings("ignore:Sparse")  # torch calls its CSR tensors a beta
def test_groups_hold_no_passage_with_the_answer_and_bm25_scores_of_its_formula(folder: Path) -> None:
    mine = _script("mine")
    data = mine.Data(folder / "data.npz", torch.device("cpu"))
    teacher = _script("model").load_teacher(str(folder / "teacher.npz"), torch.device("cpu"))
    groups = mine.mine(data, teacher, 0)
    assert len(groups.query) == 130
    texts = [
        data.tokens[s : s + n].tolist() for s, n in zip(data.p_start.tolist(), data.p_length.tolist(), strict=True)
    ]
    mean = np.mean([len(text) for text in texts])
    for row in range(0, 130, 17):
        query, own = int(groups.query[row]), int(groups.positive[row])
        kept = [int(p) for p in groups.negatives[row] if p >= 0]
        assert own == query
        assert own not in kept
        assert len(kept) > 40
        words = set(data.q_tokens[data.q_start[query] : data.q_start[query] + data.q_length[query]].tolist())
        for passage, score in ((own, groups.s[row, 0]), (kept[0], groups.s[row, 1])):
            text, expected = texts[passage], 0.0
            for word in words & set(text):
                count, df = text.count(word), sum(word in other for other in texts)
                idf = np.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
                expected += idf * count * 1.9 / (count + 0.9 * (0.6 + 0.4 * len(text) / mean))
            assert float(score) == pytest.approx(expected, rel=1e-4)


def test_a_student_scores_as_transformers_does(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model, mine = _script("model"), _script("mine")
    shape = model.Shape((0, 2), 64)
    student = model.Student(
        model.start(model.load_teacher(str(folder / "teacher.npz"), torch.device("cpu")), shape, 0), shape
    )
    config = transformers.XLMRobertaConfig(
        vocab_size=PIECES, hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=12, intermediate_size=64, num_labels=1,
        max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, hidden_act="gelu", pad_token_id=1,
    )  # fmt: skip
    reference = transformers.XLMRobertaForSequenceClassification(config).eval()
    stored = {name: tensor.float() for name, tensor in student.stored().items()}
    missing, unexpected = reference.load_state_dict(stored, strict=False)
    assert not unexpected
    assert all("position_ids" in name for name in missing)
    data = mine.Data(folder / "data.npz", torch.device("cpu"))
    packed = data.pack(torch.arange(9), torch.arange(1, 10))
    rows = [packed.ids[a:b] for a, b in zip(packed.cu[:-1].tolist(), packed.cu[1:].tolist(), strict=True)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)
    with torch.no_grad():
        expected = reference(input_ids=ids, attention_mask=(ids != 1).long()).logits[:, 0]
        found = student(packed)
    assert torch.allclose(found, expected, atol=2e-3), (found - expected).abs().max()


def test_a_smaller_vocabulary_writes_every_piece_by_its_own(folder: Path) -> None:
    data = _script("mine").Data(folder / "data.npz", torch.device("cpu"))
    teacher = _script("model").load_teacher(str(folder / "teacher.npz"), torch.device("cpu"))
    narrow = data.narrow(teacher["spelled"], teacher["spelled_lengths"])
    for p in (0, 7, 129):
        wide = data.tokens[data.p_start[p] : data.p_start[p] + data.p_length[p]].tolist()
        found = narrow.tokens[narrow.p_start[p] : narrow.p_start[p] + narrow.p_length[p]].tolist()
        assert found == [piece // 2 for piece in wide for _ in range(1 + piece % 2)]
