"""Settings that seldom need changing: what `--options` takes as NAME=VALUE.

Settings of an SAE have SAELens's names where SAELens has them, so its documentation and configurations apply. This
module does not import torch.
"""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from collect.errors import UserError

NormalizeActivations = Literal["none", "expected_average_only_in", "covariance_whitening", "covariance_whitening_zca"]
SparsityLossMode = Literal["step", "tanh", "quadratic"]


@dataclass(frozen=True, kw_only=True)
class SaeOptions:
    """Everything that is specific to an architecture, a normalisation or the step."""

    normalize_activations: NormalizeActivations = "expected_average_only_in"
    """What is done to the input; folded into the weights at export. `covariance_whitening` rotates into principal
    components as SAELens does, `covariance_whitening_zca` rotates back (our addition)."""
    whitening_epsilon: float = 1e-3
    """Added to the covariance's eigenvalues, in units of their mean, before dividing by their square roots."""
    max_norm: float | None = None
    """Longer tokens are shortened to this many times the median norm, in training only; this keeps sink tokens with
    massive norms from dominating the loss."""
    matryoshka_widths: tuple[int, ...] = ()
    """Latents in each prefix, in ascending order; d_sae is added at the end. Default: d_sae / 8, / 4, / 2, d_sae."""
    matryoshka_samples: int = 0
    """Draw this many new prefix widths at every step instead of using the fixed ones."""
    l1_coefficient: float = 1.0
    """Weight of the sparsity penalty of `standard` and `gated`."""
    lp_norm: float = 1.0
    """Norm over a token's latent activations that `standard` penalises."""
    l1_warm_up_steps: int = 0
    """Steps over which `l1_coefficient` rises from zero."""
    jumprelu_init_threshold: float = 0.01
    """Threshold of every jumprelu latent at the start."""
    jumprelu_bandwidth: float = 0.05
    """Width of the window around the threshold in which its gradient is estimated."""
    jumprelu_sparsity_loss_mode: SparsityLossMode = "step"
    """Penalty of jumprelu: the L0 (step), tanh of the activations (tanh), or the squared distance from `target_l0`
    (quadratic)."""
    jumprelu_tanh_scale: float = 4.0
    """Scale of the activations inside the tanh."""
    jumprelu_ste_to_input: bool = False
    """Whether the estimated gradient also reaches the encoder, not only the threshold."""
    l0_coefficient: float = 1.0
    """Weight of the sparsity penalty of jumprelu."""
    l0_warm_up_steps: int = 0
    """Steps over which `l0_coefficient` rises from zero."""
    target_l0: float | None = None
    """Active latents per token that the quadratic penalty aims at; k if not given."""
    pre_act_loss_coefficient: float | None = None
    """Weight of the loss that lifts dead jumprelu latents' pre-activations to their thresholds."""
    residual_threshold: float = 1e-2
    """Matching pursuit stops where the residual's norm is below this, in units of the normalised input."""
    aux_loss_coefficient: float = 1.0
    """Weight of AuxK, the loss that trains dead latents."""
    clip_grad_norm: float | None = 1.0
    """Scale all gradients down together to at most this norm, as SAELens does; `null` leaves them as they are."""
    adam_beta1: float = 0.9
    """Share of the old mean of the gradients that Adam keeps at each step."""
    adam_beta2: float = 0.999
    """The same for the mean of their squares. 0.99 trains faster, but more latents die at high learning rates
    (docs/log.md)."""
    ema_decay: float | None = None
    """Export the exponential moving average of the weights, with this much of the old average kept at each step."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: a value is out of its range.
        """
        for name in ("jumprelu_bandwidth", "jumprelu_tanh_scale", "lp_norm", "whitening_epsilon"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"{name}={getattr(self, name)} is not a positive number: leave it out for the default.")
        for name in ("max_norm", "target_l0", "clip_grad_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name}={value} is not a positive number: leave it out to do without it.")
        for name in (
            "l1_coefficient",
            "l0_coefficient",
            "aux_loss_coefficient",
            "residual_threshold",
            "jumprelu_init_threshold",
            "pre_act_loss_coefficient",
            "l1_warm_up_steps",
            "l0_warm_up_steps",
        ):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise UserError(f"{name}={value} is out of range: give zero or more, or leave it out.")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay={self.ema_decay} is not in [0, 1): give for example 0.999.")
        for name in ("adam_beta1", "adam_beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} is not in [0, 1): leave it out for the default.")
        widths = self.matryoshka_widths
        if any(a >= b for a, b in zip((0, *widths), widths, strict=False)):
            raise UserError(f"matryoshka_widths={list(widths)} do not rise from at least 1: put them in order.")
        if self.matryoshka_samples < 0:
            raise UserError(f"matryoshka_samples={self.matryoshka_samples} is negative: give zero or more.")

    def check(self, arch: str) -> None:
        """Check that the options fit an architecture.

        Raises:
            UserError: they do not.
        """
        if arch == "matching_pursuit" and self.normalize_activations.startswith("covariance_whitening"):
            raise UserError(
                f"normalize_activations={self.normalize_activations} does not go with matching_pursuit, whose encoder "
                "is its decoder, so that whitening cannot be folded into it: choose expected_average_only_in."
            )

    def widths(self, d_sae: int) -> tuple[int, ...]:
        """Widths of the fixed Matryoshka prefixes; the last one is the whole dictionary.

        Raises:
            UserError: a prefix is wider than the dictionary.
        """
        given = self.matryoshka_widths or tuple(width for width in (d_sae // 8, d_sae // 4, d_sae // 2) if width)
        widths = tuple(dict.fromkeys((*given, d_sae)))
        if max(widths) > d_sae:
            raise UserError(f"matryoshka_widths={list(given)} exceed the {d_sae} latents: lower them or raise --d-sae.")
        return widths


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """How the loop over the steps runs, and when a latent counts as dead."""

    dead_tokens: int | None = None
    """A latent is dead, and revived by AuxK, after this many tokens without firing; by default one epoch's tokens, but
    at most ten million."""
    checkpoint_every: int = 1000
    """Steps between checkpoints."""
    log_every: int = 50
    """Steps between lines of metrics.jsonl."""
    verify: bool = True
    """Whether to verify the checksum of everything that is read, once."""
    resident: bool = False
    """Whether to keep whole pools of activations (two of half a million tokens) in the GPU's memory."""
    shard_latents: bool = False
    """Under torchrun, give each process a share of the latents rather than of the tokens."""
    deterministic: bool = False
    """Whether the steps use only deterministic algorithms of torch; slower on a GPU, no change on a CPU."""

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UserError: a value is out of its range.
        """
        for name in ("dead_tokens", "checkpoint_every", "log_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name}={value} is too small: give at least 1, or leave it out.")

    def effective(self) -> list[str]:
        """NAME=VALUE of options that differ from their defaults and change the result of a training."""
        return [
            f"{field.name}={str(getattr(self, field.name)).lower()}"
            for field in dataclasses.fields(self)
            if field.name not in WITHOUT_EFFECT and getattr(self, field.name) != field.default
        ]


WITHOUT_EFFECT = ("checkpoint_every", "log_every", "verify", "resident")
"""Loop options that change how a training runs but not its result; a resumed run may change them."""


class Options(NamedTuple):
    """Everything that `--options` says."""

    loop: LoopOptions
    sae: SaeOptions
    typed: tuple[str, ...]
    """What was typed for `sae`, sorted."""

    def effective(self) -> tuple[str, ...]:
        """NAME=VALUE of options that change the result of a training, as its config.json keeps them."""
        return (*self.loop.effective(), *self.typed)


def parse_options(pairs: Iterable[str]) -> Options:
    """Options from NAME=VALUE texts, such as `l1_coefficient=2` or `matryoshka_widths=[256,1024]`.

    Raises:
        UserError: a text is not such a pair, there is no option with that name, or the value is of the wrong kind.
    """
    of_loop, of_sae = get_type_hints(LoopOptions), get_type_hints(SaeOptions)
    loop: dict[str, Any] = {}
    sae: dict[str, Any] = {}
    typed: list[str] = []
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if equals and name in of_loop:
            loop[name] = _parsed(pair, text, of_loop[name])
        elif equals and name in of_sae:
            sae[name] = _parsed(pair, text, of_sae[name])
            typed.append(pair)
        else:
            known = ", ".join((*of_loop, *of_sae))
            raise UserError(f"--options {pair!r} is not NAME=VALUE with a known name: choose from {known}.")
    return Options(LoopOptions(**loop), SaeOptions(**sae), tuple(sorted(typed)))


_KINDS = {int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}


def _parsed(pair: str, text: str, kind: Any) -> Any:
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise UserError(f"--options {pair!r}: choose one of {', '.join(get_args(kind))}.")
        return text
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):  # ValueError: no JSON, or a number of thousands of digits
        value = text
    if get_origin(kind) is tuple:
        if isinstance(value, list) and all(type(item) is int for item in value):
            return tuple(value)
        raise UserError(f"--options {pair!r}: the value has to be a list of whole numbers such as [256,1024].")
    allowed = get_args(kind) or (kind,)
    if type(value) in allowed:
        return value
    if float in allowed and type(value) is int:
        return float(text)
    raise UserError(f"--options {pair!r}: the value has to be {' or '.join(_KINDS[kind] for kind in allowed)}.")
