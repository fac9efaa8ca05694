"""What the control plane believes of stored weights, against the transformers that is installed here."""

from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightConverter
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from service.spec.slicing import STORED_OTHERWISE


def test_the_types_that_are_refused_are_those_that_transformers_converts_as_it_loads() -> None:
    converted = {
        model_type
        for model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        if any(isinstance(one, WeightConverter) for one in get_checkpoint_conversion_mapping(model_type) or ())
    }
    assert converted == STORED_OTHERWISE
