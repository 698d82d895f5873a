"""The engine `vllm`, for models that need a GPU; run with vLLM's CPU build (`make engines`), not yet on a GPU."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import torch

from phi_lab.core.errors import UserError
from phi_lab.core.seeds import derive_seed
from phi_lab.model import shapes
from phi_lab.sampling.params import Completion, SamplingParams, Tick

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_engines: dict[tuple[str, int], Any] = {}  # at most one, by (folder, context length): starting it takes a minute


def require_vllm() -> None:
    """Raises UserError where vLLM is not installed."""
    try:
        import vllm  # noqa: F401
    except ImportError:
        raise UserError("the engine vllm needs a GPU and pip install -c constraints.txt -e '.[gpu]'") from None


def _engine(folder: str, context: int) -> Any:
    """vLLM for the weights in `folder` and sequences of `context` tokens, held for the next call."""
    from vllm import LLM

    if (folder, context) not in _engines:
        release_engine()
        _engines[folder, context] = LLM(
            folder, skip_tokenizer_init=True, max_model_len=context, logprobs_mode="processed_logprobs",
            trust_remote_code=False,
        )
    return _engines[folder, context]


def release_engine() -> None:
    """Give back the GPU memory that models and vLLM's engine held."""
    _engines.clear()
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def generate(
    model: PreTrainedModel, prompts: list[list[int]], params: SamplingParams, stops: set[int], tick: Tick
) -> list[Completion]:
    """One completion for each of `prompts` (token ids), by an engine that reads the weights from the folder that the
    model was loaded from. At top_p < 1 the log-probabilities are those after the cut: vLLM gives no others that are
    divided by the temperature.
    """
    require_vllm()
    import vllm

    settings = [
        vllm.SamplingParams(
            temperature=params.temperature, top_p=params.top_p, top_k=-1, max_tokens=params.max_tokens,
            stop_token_ids=sorted(stops), detokenize=False,
            logprobs=0,  # of the chosen token alone
            seed=derive_seed(params.seed, i) % 2**31,  # each its own, or the samples of a prompt would be the same
        )
        for i in range(len(prompts))
    ]
    context = max(max(map(len, prompts)) + params.max_tokens, shapes.min_vllm_context(model))
    context = min(-(-context // 4096) * 4096, model.config.max_position_embeddings)  # so that calls share an engine
    engine = _engine(model.name_or_path, context)
    tokens = [vllm.TokensPrompt(prompt_token_ids=prompt) for prompt in prompts]
    outputs = [request.outputs[0] for request in engine.generate(tokens, settings, use_tqdm=False)]
    tick(len(prompts))
    return [(list(output.token_ids), _logprobs(output)) for output in outputs]


def _logprobs(output: Any) -> list[float]:
    """Of the chosen tokens of one of vLLM's outputs."""
    return [step[token].logprob for token, step in zip(output.token_ids, output.logprobs, strict=True)]
