"""Run by tox in an environment that holds nothing but the wheel: is what users need in it?"""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import zoo


def find_packages() -> list[str]:
    """What the distribution installed at the top."""
    names = importlib.metadata.packages_distributions()
    return [name for name, distributions in names.items() if "zoo-runner" in distributions]


def run(*args: str) -> str:
    with tempfile.TemporaryDirectory() as elsewhere:
        return subprocess.run([*args], capture_output=True, text=True, check=True, cwd=elsewhere).stdout


def main() -> None:
    checkout = Path(__file__).resolve().parent.parent
    package = Path(zoo.__file__).resolve()
    assert checkout / "zoo" not in package.parents, f"tested the checkout, not the wheel: {package}"
    for heavy in ("torch", "transformers", "optimum", "pytest"):
        assert importlib.util.find_spec(heavy) is None, f"the core pulled in {heavy}"

    for typed in ("zoo", *(name for name in find_packages() if name.startswith("zoo_"))):
        assert importlib.resources.files(typed).joinpath("py.typed").is_file(), f"{typed} brings no types"
    models = {row["name"] for row in json.loads(run("zoo", "models", "--json"))}
    assert {"bge-reranker-v2-m3", "zoo-reranker-tiny"} <= models, models
    assert all(plugin["ok"] for plugin in json.loads(run("zoo", "plugins", "--json"))["plugins"])
    hi, sentence = (json.loads(line) for line in run("zoo", "run", "zoo-reranker-tiny", "--json").splitlines())
    assert sentence["logit"] > hi["logit"], (hi, sentence)
    assert run("zoo", "run", "zoo-reranker-tiny") == run(sys.executable, "-m", "zoo", "run", "zoo-reranker-tiny")
    assert run("zoo", "doctor", "--offline").startswith("versions")
    assert "用法" in run("zoo", "--lang", "zh", "run", "--help")
    sys.stdout.write("the wheel holds what it needs\n")


if __name__ == "__main__":
    main()
