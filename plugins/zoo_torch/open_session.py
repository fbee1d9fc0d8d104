"""From a checkpoint to an open session on one device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zoo.api import Artifact, Precision, SessionOptions, ZooError, float32_bytes, read_object, usable_threads
from zoo_torch import budget, families, modernbert
from zoo_torch.executors import CpuExecutor, CudaExecutor, Executor
from zoo_torch.families import NotPackable
from zoo_torch.faults import first_line
from zoo_torch.head import ScoreTokens, score_tokens
from zoo_torch.kernels import choose_kernels
from zoo_torch.model import Model
from zoo_torch.modernbert_shape import shape_of as shape_of_modernbert
from zoo_torch.options import TorchOptions
from zoo_torch.session import TorchSession
from zoo_torch.weights import Weights, safetensors_files

logger = logging.getLogger("zoo.torch")

DTYPES: Mapping[Precision, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
OVERHEAD = 512 * 2**20
"""Bytes of a card that torch's context, its libraries' workspaces and the smallest batch take."""


def open_on(where: str, artifact: Artifact, options: SessionOptions) -> TorchSession:
    """A session on ``where``: "cpu", "cuda:1". Raises ZooError."""
    chosen, tokens = TorchOptions.of(options.extra), score_tokens(artifact.head)
    device = torch.device(where)
    name = "torch" if device.type == "cpu" else where
    folder, files = safetensors_files(artifact.model)
    config = read_object(folder / "config.json")
    if options.precision not in DTYPES:
        raise ZooError(f"{name} does not run in {options.precision}; it runs in {', '.join(DTYPES)}")
    dtype = DTYPES[options.precision]
    if dtype is torch.float32:
        torch.set_float32_matmul_precision("highest")  # no TF32, whatever another library has set
    if device.type == "cpu":
        torch.set_num_threads(options.threads or usable_threads())
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
            _check_memory(name, folder, dtype)
        with torch.no_grad():  # of this thread; the session's executor does the same for its own
            model = _load(folder, files, config, tokens, device, dtype, chosen)
        executor, size = _executor(model, device, chosen)
        _warm_up(model, executor)
    except torch.OutOfMemoryError as error:
        raise ZooError(
            f"{name}: the memory does not hold the weights of {folder}. End what else uses it (nvidia-smi lists it)"
        ) from error
    except RuntimeError as error:  # a driver that is too old, a card that this build of torch has no kernels for
        raise ZooError(f"{name} cannot run {folder}: {first_line(error)}") from error
    session = TorchSession(name, model, executor, size)
    card = "" if device.type == "cpu" else f" ({torch.cuda.get_device_name(device)})"
    logger.info("%s%s: %s; batches of %s tokens", name, card, model.described, f"{size.wanted:,}")
    return session


def _load(
    folder: Path,
    files: list[Path],
    config: Mapping[str, Any],
    tokens: ScoreTokens | None,
    device: torch.device,
    dtype: torch.dtype,
    chosen: TorchOptions,
) -> Model:
    """The packed model where its arithmetic is known, else transformers' own. Which, and why, is logged."""
    try:
        if chosen.packed == "off":
            raise NotPackable("packed=off")
        if tokens:
            raise NotPackable("its score comes from tokens of a language model")
        with Weights(files, device, dtype) as weights:
            model = _build_packed(config, weights, device, dtype, chosen)
            if left := weights.left_over():
                logger.info("nothing reads these weights in %s: %s", folder, ", ".join(left[:8]))
            return model
    except NotPackable as error:
        reason = str(error)
    except KeyError as error:
        raise ZooError(f"{folder}/config.json lacks the key {error}: fetch it again from where it came from") from error
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise ZooError(f"{folder}/config.json has a value that makes no sense: {error}") from error
    from zoo_torch import transformers_model

    _, own = safetensors_files(folder)
    if set(files) != set(own):
        raise ZooError(
            f"{files[0]} is not what {folder} has as its weights ({own[0].name}), which transformers reads: put it in their place"
        )
    logger.info("%s runs through transformers, padded: %s", folder, reason)
    return transformers_model.load(folder, config, tokens, device, dtype)


def _build_packed(
    config: Mapping[str, Any], weights: Weights, device: torch.device, dtype: torch.dtype, chosen: TorchOptions
) -> Model:
    build: Callable[..., Model]
    reach: int | None
    if config.get("model_type") == "modernbert":
        shape = shape_of_modernbert(config)
        widths, reach, build = shape.widths, shape.reach, modernbert.build
    else:
        widths, reach, build = families.shape_of(config).widths, None, families.build
    kernels = choose_kernels(chosen.attention, chosen.compile, widths=widths, reach=reach, dtype=dtype, device=device)
    return build(config, weights, kernels)


def _executor(model: Model, device: torch.device, chosen: TorchOptions) -> tuple[Executor, budget.Budget]:
    if device.type == "cpu":
        return CpuExecutor(model), budget.for_cpu(chosen.batch_tokens)
    executor = CudaExecutor(model, device)
    multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    return executor, budget.for_card(model.cost, executor.free_memory(), multiprocessors, chosen.batch_tokens)


def _check_memory(name: str, folder: Path, dtype: torch.dtype) -> None:
    """Raises ZooError before anything is loaded when the card cannot hold the weights."""
    needed = float32_bytes(folder) // 4 * dtype.itemsize + OVERHEAD
    free, total = torch.cuda.mem_get_info()
    if free < needed:
        raise ZooError(
            f"{name} has {free / 2**30:.1f} of {total / 2**30:.1f} GiB free; the weights in {folder} need about {needed / 2**30:.1f} GiB. "
            "End what else uses it (nvidia-smi lists it), or use another card or precision"
        )


def _warm_up(model: Model, executor: Executor) -> None:
    """Two rows before the clock starts: kernels are compiled, and libraries take their workspaces."""
    lengths = np.minimum([[30], [17]], model.cost.longest)
    mask = (np.arange(lengths.max()) < lengths).astype(np.int64)
    inputs = {name: mask if name == "attention_mask" else np.zeros_like(mask) for name in model.input_names}
    executor.start(model.prepare(inputs), lambda: None).wait()
