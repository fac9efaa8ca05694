"""What the control plane believes of vLLM, against the vLLM that is installed here."""

import pytest
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from service.spec.model_config import CPU_HEAD_SIZES, NOT_SERVED, has_cpu_engine


def test_the_model_types_that_are_refused_are_those_that_vllm_serves_in_no_way() -> None:
    from vllm.model_executor.models import ModelRegistry

    served = set(ModelRegistry.get_supported_archs())
    not_served = set()
    for model_type, classes in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        names = [classes] if isinstance(classes, str) else list(classes)
        if not any(name in served or getattr(transformers, name).is_backend_compatible() for name in names):
            not_served.add(model_type)
    assert not_served == NOT_SERVED


@pytest.mark.skipif(not has_cpu_engine(), reason="vLLM's CPU build is not installed")
def test_the_head_sizes_are_those_of_the_cpu_backend() -> None:
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    assert tuple(CPUAttentionBackend.get_supported_head_sizes()) == CPU_HEAD_SIZES
