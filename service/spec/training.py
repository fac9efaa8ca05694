"""How the policy is trained."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from service.spec.base import SpecModel


class FullFineTuning(SpecModel):
    """Every weight is trained."""

    type: Literal["full"] = "full"


class Lora(SpecModel):
    """Low-rank adapters on frozen weights (Hu et al., arXiv 2106.09685); published merged, with the adapter beside."""

    type: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1, le=512, description="Rank of the update matrices.")
    alpha: float = Field(32, gt=0, le=4096, description="Scale: the update is multiplied by alpha / rank.")
    target_modules: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="Names of the modules to adapt, or every linear layer but the head."
    )


Method = Annotated[FullFineTuning | Lora, Field(discriminator="type")]


class Precision(StrEnum):
    """Numeric policy of forward and backward; weights, reductions and the optimizer are float32 in both."""

    FLOAT32 = "float32"
    BF16 = "bf16"  # matrix products in bfloat16 (autocast)


class Schedule(StrEnum):
    """Learning rate after warm-up."""

    CONSTANT = "constant"
    LINEAR = "linear"  # to zero at the last step
    COSINE = "cosine"  # to zero at the last step


class ReferenceSync(SpecModel):
    """A reference that follows the policy (TR-DPO, arXiv 2404.09656): every so many steps it becomes
    alpha * policy + (1 - alpha) * reference, weight by weight."""

    alpha: float = Field(0.6, gt=0, le=1, description="Share of the policy; 1 replaces the reference.")
    every: int = Field(512, ge=1, le=10_000_000, description="Optimizer steps between two updates.")


class Training(SpecModel):
    method: Method = Field(default_factory=FullFineTuning, description="`full` or `lora`.")
    epochs: float = Field(1.0, gt=0, le=1000, description="Passes over the training pairs.")
    max_steps: int | None = Field(
        None, ge=1, le=10_000_000, description="Stop after this many optimizer steps, if epochs would go on longer."
    )
    batch_size: int = Field(
        32, ge=1, le=65_536, description="Pairs per optimizer step, over all workers and micro-batches."
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Peak learning rate of AdamW. Default by what is trained: preference losses 1e-6 (full) or "
        "1e-5 (LoRA); `sft` alone 2e-5 (full) or 2e-4 (LoRA).",
    )
    schedule: Schedule = Field(Schedule.COSINE, description="Learning rate after warm-up.")
    warmup_ratio: float = Field(0.1, ge=0, lt=1, description="Share of the steps with a linearly rising rate.")
    weight_decay: float = Field(0.0, ge=0, le=1, description="Decoupled weight decay of AdamW, on matrices only.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this global L2 norm.")
    reference_sync: ReferenceSync | None = Field(
        None,
        description="Let the reference follow the policy (TR-DPO). It is then kept and scored on the policy pool, "
        "beside the policy. Full fine-tuning only.",
    )
    precision: Precision = Field(Precision.BF16, description="`bf16` (autocast, float32 weights) or `float32`.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations in backward: less memory, slower.")
    micro_batch_tokens: int = Field(
        8192, ge=64, le=4_194_304, description="Tokens per forward pass. Memory and speed only: the result is the same."
    )
    checkpoint_every: int = Field(50, ge=1, description="Optimizer steps between checkpoints.")
    checkpoints_to_keep: int = Field(2, ge=1, le=100, description="Newest checkpoints kept while the job runs.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Order of the pairs, held-out split, initial adapters.")

    @model_validator(mode="after")
    def _sync_needs_all_weights(self) -> "Training":
        if self.reference_sync and self.method.type != "full":
            raise ValueError("`reference_sync` mixes all weights of policy and reference: it needs `method: full`")
        return self
