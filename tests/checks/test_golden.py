"""``zoo verify`` scores the pairs whose scores a card's publisher gives, and holds each against its tolerance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import PANDA, Zoo

pytestmark = [pytest.mark.export]

CARD = """description = "d"
architecture = "cross-encoder"
license = "MIT"
languages = ["en"]
max_length = 512
bundled = "weights"
golden = [
  {{ query = "{query}", passage = "{passage}", logit = {logit}, tolerance = 0.01, settings = "float32", source = "a page" }},
]
"""


@pytest.mark.parametrize(("off", "passes"), [(0.0, True), (0.05, False)])
def test_a_published_score_is_reproduced_or_the_check_fails(zoo: Zoo, tiny: Path, off: float, passes: bool) -> None:
    query, passage = PANDA[1]
    line = json.loads(zoo("run", tiny, "--json").stdout.splitlines()[1])
    Path("weights").symlink_to(tiny)
    Path("mine.toml").write_text(CARD.format(query=query, passage=passage, logit=line["logit"] + off))
    result = zoo("verify", "./mine.toml", "--target", "cpu", "--no-torch", "--pairs-only", "--json")
    [golden] = [
        check for check in json.loads(result.stdout)["checks"] if check["name"].startswith("the model card's pair")
    ]
    assert golden["passed"] is passes
    assert golden["deviation"] == pytest.approx(off, abs=1e-4)
    assert result.exit_code == (0 if passes else 1)
    assert Path("zoo-verify-mine-cpu.json").is_file()


def test_the_pairs_of_a_user_take_their_place(zoo: Zoo, tiny: Path) -> None:
    Path("weights").symlink_to(tiny)
    Path("mine.toml").write_text(CARD.format(query="q", passage="d", logit=99))
    Path("pairs.jsonl").write_text('["q", "d"]\n')
    words = ("--target", "cpu", "--no-torch", "--data-path", "pairs.jsonl", "--json")
    result = zoo("verify", "./mine.toml", *words)
    assert result.exit_code == 0, result.stderr
