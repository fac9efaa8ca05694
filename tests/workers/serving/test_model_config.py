"""What the control plane believes of vLLM, against the vLLM that is installed here."""

import ast
from pathlib import Path

import pytest
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from service.spec.model_config import CPU_HEAD_SIZES, NO_ADAPTERS, NOT_SERVED, has_cpu_engine


def test_the_model_types_that_are_refused_are_those_that_vllm_serves_in_no_way() -> None:
    from vllm.model_executor.models import ModelRegistry

    served = set(ModelRegistry.get_supported_archs())
    not_served = set()
    for model_type, classes in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        names = [classes] if isinstance(classes, str) else list(classes)
        if not any(name in served or getattr(transformers, name).is_backend_compatible() for name in names):
            not_served.add(model_type)
    assert not_served == NOT_SERVED


def test_the_model_types_without_adapters_are_those_whose_classes_do_not_say_that_they_take_them() -> None:
    from vllm.model_executor import models
    from vllm.model_executor.models.registry import _MULTIMODAL_MODELS, _TEXT_GENERATION_MODELS

    bases = {}
    for file in Path(models.__path__[0]).glob("*.py"):  # read, not imported: that takes a minute
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.ClassDef):
                bases[file.stem, node.name] = [ast.unparse(base).rpartition(".")[2] for base in node.bases]

    def takes(module: str, name: str) -> bool:
        homes = [module] if (module, name) in bases else [home for home, one in bases if one == name]
        return name == "SupportsLoRA" or any(takes(home, base) for home in homes for base in bases[home, name])

    served = _MULTIMODAL_MODELS | _TEXT_GENERATION_MODELS
    without = set()
    for model_type, classes in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        names = [classes] if isinstance(classes, str) else list(classes)
        homes = [served[name] for name in names if name in served]  # others go through transformers, which takes them
        if model_type not in NOT_SERVED and homes and not any(home in bases and takes(*home) for home in homes):
            without.add(model_type)
    assert without == NO_ADAPTERS


@pytest.mark.skipif(not has_cpu_engine(), reason="vLLM's CPU build is not installed")
def test_the_head_sizes_are_those_of_the_cpu_backend() -> None:
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    assert tuple(CPUAttentionBackend.get_supported_head_sizes()) == CPU_HEAD_SIZES
