"""How the policy is trained."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from service.spec.base import SpecModel


class FullFineTuning(SpecModel):
    """Every weight is trained."""

    type: Literal["full"] = "full"


ModuleName = Annotated[str, Field(min_length=1, max_length=200)]


class Lora(SpecModel):
    """Low-rank adapters on frozen weights (Hu et al., arXiv 2106.09685); published merged, with the adapter beside.

    Served merged too, so vLLM's limits on the rank and the targets of an adapter are none here.
    """

    type: Literal["lora"] = "lora"
    rank: int = Field(16, ge=1, le=512, description="Rank of the update matrices.")
    alpha: float = Field(
        32, gt=0, le=4096, description="Scale: the update is multiplied by alpha / rank, or as `rslora` says."
    )
    target_modules: Literal["all-linear"] | Annotated[list[ModuleName], Field(min_length=1, max_length=256)] = Field(
        "all-linear",
        description="Names of the modules to adapt, whole or their last parts, or every linear layer but the head.",
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of an adapter's inputs that is zeroed in training, never in evaluation. With it, a step "
        "depends on how its pairs are packed and spread over workers; a resumed run still repeats it exactly.",
    )
    rslora: bool = Field(
        False, description="Multiply by alpha / sqrt(rank) instead (Kalajdzievski, arXiv 2312.03732); for high ranks."
    )
    dora: bool = Field(
        False,
        description="Train magnitude and direction of each weight apart (Liu et al., arXiv 2402.09353): nearer to "
        "full fine-tuning at low ranks, slower.",
    )
    modules_to_save: Annotated[list[ModuleName], Field(max_length=64)] = Field(
        default_factory=list,
        description="Modules trained whole beside the adapters, such as `embed_tokens`, `lm_head`. Where the model "
        "ties these two, either name trains the one matrix they share.",
    )
    continue_adapter: bool = Field(
        False,
        description="Go on training the adapter that the job named in `model` published, from its base. The reference "
        "is then the model with the adapter as it was. The adapter's options are taken over; given ones must equal.",
    )

    @model_validator(mode="after")
    def _each_module_once(self) -> "Lora":
        targets = [] if self.target_modules == "all-linear" else list(self.target_modules)
        for name, modules in (("target_modules", targets), ("modules_to_save", self.modules_to_save)):
            if twice := sorted({module for module in modules if modules.count(module) > 1}):
                raise ValueError(f"`{name}` has {', '.join(twice)} more than once")
        if both := sorted(set(targets) & set(self.modules_to_save)):
            raise ValueError(f"{', '.join(both)}: in `target_modules` and in `modules_to_save`; choose one")
        return self


Method = Annotated[FullFineTuning | Lora, Field(discriminator="type")]


class Precision(StrEnum):
    """Numeric policy of forward and backward; weights, reductions and the optimizer are float32 in both."""

    FLOAT32 = "float32"
    BF16 = "bf16"  # matrix products in bfloat16 (autocast)


class Parallelism(StrEnum):
    """How several training workers hold the policy; one worker alone holds it whole."""

    DDP = "ddp"  # each a whole copy
    FSDP = "fsdp"  # each a slice of every weight, gradient and optimizer state


class Schedule(StrEnum):
    """Learning rate after warm-up."""

    CONSTANT = "constant"
    LINEAR = "linear"  # to zero at the last step
    COSINE = "cosine"  # to zero at the last step


class ReferenceSync(SpecModel):
    """A reference that follows the policy (TR-DPO, arXiv 2404.09656): every so many steps it becomes
    alpha * policy + (1 - alpha) * reference, weight by weight."""

    alpha: float = Field(0.6, gt=0, le=1, description="Share of the policy; 1 replaces the reference.")
    every: int = Field(
        512,
        ge=1,
        le=10_000_000,
        description="Optimizer steps between two updates.",
        json_schema_extra={"unit": "steps"},
    )


class Training(SpecModel):
    method: Method = Field(default_factory=FullFineTuning, description="`full` or `lora`.")
    epochs: float = Field(
        1.0, gt=0, le=1000, description="Passes over the training pairs.", json_schema_extra={"unit": "passes"}
    )
    max_steps: int | None = Field(
        None,
        ge=1,
        le=10_000_000,
        description="Stop after this many optimizer steps, if epochs would go on longer.",
        json_schema_extra={"unit": "steps"},
    )
    batch_size: int = Field(
        32,
        ge=1,
        le=65_536,
        description="Rows per optimizer step, over all workers and micro-batches.",
        json_schema_extra={"unit": "rows per step"},
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Peak learning rate of AdamW. Default by what is trained: preference losses 1e-6 (full) or "
        "1e-5 (LoRA); `sft` alone 2e-5 (full) or 2e-4 (LoRA).",
    )
    schedule: Schedule = Field(Schedule.COSINE, description="Learning rate after warm-up.")
    warmup_ratio: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of the steps with a linearly rising rate.",
        json_schema_extra={"unit": "share of the steps"},
    )
    weight_decay: float = Field(0.0, ge=0, le=1, description="Decoupled weight decay of AdamW, on matrices only.")
    max_grad_norm: float = Field(
        1.0,
        gt=0,
        le=1e9,
        description="Gradients are scaled down to this global L2 norm.",
        json_schema_extra={"unit": "L2 norm"},
    )
    reference_sync: ReferenceSync | None = Field(
        None,
        description="Let the reference follow the policy (TR-DPO). It is then kept and scored on the policy pool, "
        "beside the policy. Full fine-tuning only.",
    )
    precision: Precision = Field(Precision.BF16, description="`bf16` (autocast, float32 weights) or `float32`.")
    parallelism: Parallelism = Field(
        Parallelism.DDP,
        description="With several policy workers: `ddp` (a whole copy each) or `fsdp` (a slice each, for models whose "
        "weights, gradients and optimizer state do not fit one GPU).",
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations in backward: less memory, slower.")
    compile: bool = Field(
        False,
        description="Fuse the layers' norms, gates and casts by torch.compile, in training and in the reference pass: "
        "in `bf16` mostly faster and in less memory, after up to a minute of compiling a process. Rounding differs.",
    )
    micro_batch_tokens: int = Field(
        8192,
        ge=64,
        le=4_194_304,
        description="Tokens per forward pass. Memory and speed only: the result is the same.",
        json_schema_extra={"unit": "tokens"},
    )
    checkpoint_every: int = Field(
        50, ge=1, le=10_000_000, description="Optimizer steps between checkpoints.", json_schema_extra={"unit": "steps"}
    )
    checkpoints_to_keep: int = Field(
        2,
        ge=1,
        le=100,
        description="Newest checkpoints kept while the job runs.",
        json_schema_extra={"unit": "checkpoints"},
    )
    seed: int = Field(
        0, ge=0, le=2**31 - 1, description="Order of the pairs, held-out split, initial adapters, their dropout."
    )

    @model_validator(mode="after")
    def _sync_needs_all_weights(self) -> "Training":
        if self.reference_sync and self.method.type != "full":
            raise ValueError("`reference_sync` mixes all weights of policy and reference: it needs `method: full`")
        return self

    @model_validator(mode="after")
    def _no_dora_in_slices(self) -> "Training":
        if self.parallelism is Parallelism.FSDP and isinstance(self.method, Lora) and self.method.dora:
            raise ValueError("`dora` cannot be merged into a model in slices: set `parallelism: ddp`, or `dora: false`")
        return self
