"""What the package returns: plans, reports, evaluations and inspections as dataclasses.

Losses and KL divergences are in nats per predicted token, sizes in bytes, times in seconds. Each can be turned into a
pandas table (`to_pandas`), drawn (`plot`), and shows itself in notebooks.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Iterable, Mapping, Sequence

from .pictures import bar_chart, line_chart, table


def made(cls: type, values: Mapping[str, Any], **more: Any) -> Any:
    """A dataclass from those of the values that it has fields for."""
    known = {entry.name for entry in fields(cls)}
    return cls(**{key: value for key, value in values.items() if key in known}, **more)


def _frame(rows: Iterable[Mapping[str, Any]]) -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ImportError("to_pandas needs pandas: pip install pandas") from error
    return pandas.DataFrame(list(rows))


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def _number(value: float | None) -> float:
    return math.nan if value is None else value  # JSON has no NaN and no infinity


def _draw_lines(axes: Any, series: Mapping[str, Sequence[tuple[float, float]]], x_label: str, title: str) -> Any:
    """The lines on axes of matplotlib."""
    for name, points in series.items():
        axes.plot([x for x, _ in points], [y for _, y in points], marker=".", label=name)
    axes.set(yscale="log", xlabel=x_label, title=title)
    axes.legend()
    return axes


@dataclass(frozen=True)
class LoaderVerdict:
    """Whether a program loads the folder; the reason where there is something to say."""

    loader: str
    accepts: bool
    reason: str


@dataclass(frozen=True)
class Linear:
    """A linear and its codes."""

    name: str
    block: int  # -1: of no block
    expert: int  # -1: of no expert
    out_features: int
    in_features: int
    bits: int
    group_size: int
    loss: float  # mean over tokens of |(T - Q) x|^2, T being the targets; of rounding alone: mean square of W - Q
    error: float  # the same relative to |W x|^2, or to W's mean square
    loss_after: list[tuple[str, float]]  # each stage: "rounded", "columns", "refit", "sweep"
    target_shift: float  # |(T - W) x|^2 relative to |W x|^2
    tokens: int  # that the Hessian has seen
    routed_tokens: int | None  # an expert's, by its router
    scales: dict[str, float]  # least, median and largest magnitude; share of negative ones
    damp_percent: float
    dead_columns: int

    @property
    def kind(self) -> str:
        """The last part of its name: "q_proj"."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class Check:
    """The output, read as a loader reads it, against the original model on a few sequences."""

    sequences: int
    held_back: bool  # the sequences are not of the calibration
    difference: float  # of states and logits from those that the run had, relative
    tokens: int = 0  # predicted; 0 for a model without an output head
    mean_kl: float = math.nan
    same_top: float = math.nan  # share of tokens where both have one most likely next token
    model_nll: float = math.nan
    quantized_nll: float = math.nan
    frequency_nll: float = math.nan


@dataclass(frozen=True)
class PlannedDevice:
    """Memory of a device, or of the host."""

    name: str
    description: str
    peak_bytes: int
    limit_bytes: int


@dataclass(frozen=True)
class Unit:
    """A module, where it computes and where it stays otherwise."""

    module: str
    computes_on: str
    stays: str
    bytes: int
    visits: bool  # comes from the CPU for its turn, alone


@dataclass(frozen=True)
class Plan:
    """Time, memory, disk and loaders of a job, worked out from the headers of the model's files."""

    model: str
    output: str
    device_map: Any
    compute_dtype: str
    checkpoint_format: str
    states: str  # where hidden states wait: "device", "host" or "spill"
    accelerators: list[PlannedDevice]
    host: PlannedDevice
    sequences: int
    tokens: int
    spill_bytes: int
    source_bytes: int
    output_bytes: int
    quantized_weights: int
    bits_per_weight: float
    seconds: float
    stage_seconds: dict[str, float]
    units: list[Unit]
    loaders: list[LoaderVerdict]
    messages: list[str]
    warnings: list[str]
    data: dict[str, Any] = field(repr=False)  # all of it, as `gptq plan --json` prints it

    def to_pandas(self) -> Any:
        """A row for each unit."""
        return _frame(asdict(unit) for unit in self.units)

    def plot(self, ax: Any = None) -> Any:
        """Seconds by stage: a `Picture` (SVG), or on axes of matplotlib, which are returned."""
        return _draw_stages(self.stage_seconds, "planned time by stage", ax)

    def _repr_html_(self) -> str:
        rows = [
            ("model", self.model),
            ("time", f"about {self.seconds:.0f} s, in {self.compute_dtype}"),
            *((device.name, f"peak {_size(device.peak_bytes)}") for device in [*self.accelerators, self.host]),
            (
                "weights",
                f"{_size(self.source_bytes)} to {_size(self.output_bytes)}, {self.bits_per_weight:.3f} bits each",
            ),
            ("loads in", ", ".join(v.loader for v in self.loaders if v.accepts) or "none that is known"),
            *(("warning", text) for text in self.warnings),
        ]
        return table(rows) + self.plot()._repr_html_()


@dataclass(frozen=True)
class Report:
    """What a run of `quantize` has measured."""

    model: str
    output: str
    skipped: bool = False  # the output was there already (skip_existing): nothing else is known
    device: str = ""
    device_map: Any = None
    compute_dtype: str = ""
    checkpoint_format: str = ""
    recipe: dict[str, Any] = field(default_factory=dict)  # all choices, the open ones as they were made
    linears: list[Linear] = field(default_factory=list, repr=False)
    average_bits: float = 0.0
    sequences: int = 0
    tokens: int = 0
    source_bytes: int = 0
    output_bytes: int = 0
    quantized_weights: int = 0
    bits_per_weight: float = 0.0  # of the quantized linears, scales and zeros included
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    check: Check | None = None
    plan: Plan | None = field(default=None, repr=False)
    warnings: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict, repr=False)  # all of it, as `gptq quantize --json` prints it

    @property
    def loaders(self) -> list[LoaderVerdict]:
        """Which programs load the output."""
        return self.plan.loaders if self.plan else []

    def to_pandas(self) -> Any:
        """A row for each linear; a column for the loss after each of its stages."""
        rows = []
        for linear in self.linears:
            row = asdict(linear)
            for stage, loss in row.pop("loss_after"):
                row[f"loss_{stage}"] = loss
            row.update({f"scale_{key}": value for key, value in row.pop("scales").items()})
            rows.append({**row, "kind": linear.kind})
        return _frame(rows)

    def errors_by_kind(self) -> dict[str, list[tuple[int, float]]]:
        """For each kind of linear (block, relative error), the mean over experts."""
        found: dict[str, dict[int, list[float]]] = {}
        for linear in self.linears:
            if linear.block >= 0:
                found.setdefault(linear.kind, {}).setdefault(linear.block, []).append(linear.error)
        return {
            kind: [(block, sum(errors) / len(errors)) for block, errors in sorted(blocks.items())]
            for kind, blocks in found.items()
        }

    def plot(self, ax: Any = None) -> Any:
        """Relative error by block, a line for each kind of linear: a `Picture` (SVG), or on axes of matplotlib, which
        are returned."""
        title = "relative output error by block"
        if ax is not None:
            return _draw_lines(ax, self.errors_by_kind(), "block", title)
        return line_chart(title, self.errors_by_kind(), "block")

    def _repr_html_(self) -> str:
        if self.skipped:
            return table([("output", f"{self.output}: is there already, with this recipe")])
        rows = [
            ("model", self.model),
            ("output", self.output),
            ("bits per weight", f"{self.bits_per_weight:.3f} in {len(self.linears)} linears"),
            ("weights", f"{_size(self.source_bytes)} to {_size(self.output_bytes)}"),
            ("time", f"{self.seconds:.1f} s on {self.device}, peak memory {_size(self.peak_memory_bytes)}"),
            ("calibration", f"{self.sequences} sequences, {self.tokens} tokens"),
        ]
        if self.check and self.check.tokens:
            rows.append(("check", f"KL {self.check.mean_kl:.4f}, same next token {100 * self.check.same_top:.1f} %"))
        rows.append(("loads in", ", ".join(v.loader for v in self.loaders if v.accepts) or "none that is known"))
        rows += [("warning", text) for text in self.warnings]
        stages = bar_chart("seconds by stage", self.stage_seconds, "s")
        return table(rows) + self.plot()._repr_html_() + stages._repr_html_()


@dataclass(frozen=True)
class Perplexity:
    """The loss of a model on one text. perplexity is exp(mean_nll)."""

    text: str
    perplexity: float
    mean_nll: float
    predicted_tokens: int
    windows: int
    seconds: float  # of a comparison: of both models together


@dataclass(frozen=True)
class Evaluation:
    """A model on one or several texts. The figures are of all predicted tokens; `texts` has those of each text."""

    model: str
    texts: list[Perplexity]

    @property
    def predicted_tokens(self) -> int:
        return sum(text.predicted_tokens for text in self.texts)

    @property
    def windows(self) -> int:
        return sum(text.windows for text in self.texts)

    @property
    def seconds(self) -> float:
        return sum(text.seconds for text in self.texts)

    @property
    def mean_nll(self) -> float:
        return _mean((text.mean_nll, text.predicted_tokens) for text in self.texts)

    @property
    def perplexity(self) -> float:
        return self.texts[0].perplexity if len(self.texts) == 1 else math.exp(self.mean_nll)

    def to_pandas(self) -> Any:
        """A row for each text."""
        return _frame(asdict(text) for text in self.texts)

    def plot(self, ax: Any = None) -> Any:
        """Perplexity by text: a `Picture` (SVG), or on axes of matplotlib, which are returned."""
        values = {text.text: text.perplexity for text in self.texts}
        if ax is not None:
            ax.barh(list(values), list(values.values()))
            ax.set(title="perplexity")
            return ax
        return bar_chart("perplexity", values, "")

    def __repr__(self) -> str:
        return (
            f"Evaluation(model={self.model!r}, perplexity={self.perplexity:.4f}, mean_nll={self.mean_nll:.5f}, "
            f"predicted_tokens={self.predicted_tokens}, windows={self.windows})"
        )

    def _repr_html_(self) -> str:
        rows = [
            (text.text, f"perplexity {text.perplexity:.4f} over {text.predicted_tokens} tokens") for text in self.texts
        ]
        return table(rows)


@dataclass(frozen=True)
class Position:
    """Means over the windows that reach a position."""

    windows: int
    model_nll: float
    quantized_nll: float
    kl: float


@dataclass(frozen=True)
class TextComparison:
    """Two models on one text."""

    text: str
    model: Perplexity
    quantized: Perplexity
    loss_change: float  # quantized - model: the logarithm of the ratio of their perplexities
    loss_change_error: float  # its standard error, tokens taken as independent
    mean_kl: float
    kl_99: float  # 99 % of the tokens have this KL or less
    max_kl: float
    same_top: float  # share of tokens where both have one most likely next token
    positions: list[Position] = field(repr=False)  # [i]: predictions of a window's token i + 1


@dataclass(frozen=True)
class Comparison:
    """Two models on one or several texts. The figures are of all predicted tokens; `texts` has those of each text."""

    model: str
    quantized: str
    texts: list[TextComparison]
    disagreement: str  # names two texts that judge the quantized model differently; else empty

    def _mean(self, name: str) -> float:
        return _mean((getattr(text, name), text.model.predicted_tokens) for text in self.texts)

    @property
    def predicted_tokens(self) -> int:
        return sum(text.model.predicted_tokens for text in self.texts)

    @property
    def kl(self) -> float:
        """Mean KL(model || quantized)."""
        return self._mean("mean_kl")

    @property
    def same_top(self) -> float:
        return self._mean("same_top")

    @property
    def loss_change(self) -> float:
        return self._mean("loss_change")

    @property
    def model_perplexity(self) -> float:
        return math.exp(_mean((text.model.mean_nll, text.model.predicted_tokens) for text in self.texts))

    @property
    def quantized_perplexity(self) -> float:
        return math.exp(_mean((text.quantized.mean_nll, text.model.predicted_tokens) for text in self.texts))

    def to_pandas(self) -> Any:
        """A row for each text."""
        return _frame(
            {
                "text": text.text,
                "perplexity": text.model.perplexity,
                "quantized_perplexity": text.quantized.perplexity,
                "loss_change": text.loss_change,
                "loss_change_error": text.loss_change_error,
                "mean_kl": text.mean_kl,
                "kl_99": text.kl_99,
                "max_kl": text.max_kl,
                "same_top": text.same_top,
                "predicted_tokens": text.model.predicted_tokens,
            }
            for text in self.texts
        )

    def plot(self, ax: Any = None) -> Any:
        """KL by position in the window, a line for each text: a `Picture` (SVG), or on axes of matplotlib, which are
        returned."""
        series = {text.text: [(i + 1, position.kl) for i, position in enumerate(text.positions)] for text in self.texts}
        if ax is not None:
            return _draw_lines(ax, series, "position", "KL by position")
        return line_chart("KL by position", series, "position")

    def __repr__(self) -> str:
        return (
            f"Comparison(model={self.model!r}, quantized={self.quantized!r}, kl={self.kl:.5f}, "
            f"model_perplexity={self.model_perplexity:.4f}, quantized_perplexity={self.quantized_perplexity:.4f}, "
            f"same_top={self.same_top:.4f})"
        )

    def _repr_html_(self) -> str:
        rows = [
            (
                text.text,
                f"perplexity {text.model.perplexity:.4f}, quantized {text.quantized.perplexity:.4f}, "
                f"KL {text.mean_kl:.5f}, same next token {100 * text.same_top:.2f} %",
            )
            for text in self.texts
        ]
        return table(rows) + self.plot()._repr_html_()


@dataclass(frozen=True)
class Module:
    """A tensor, or a quantized linear."""

    name: str
    dtype: str  # as stored: "BF16"; "gptq" or "compressed-tensors" where quantized
    shape: list[int]
    bits: int  # 0: not quantized
    group_size: int
    bytes: int


@dataclass(frozen=True)
class Inspection:
    """What is in a folder, and which loaders accept it."""

    model: str
    model_type: str
    checkpoint_format: str  # empty where not quantized
    blocks: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    parameters: int
    bytes: int
    tied_embeddings: bool
    sym: bool
    desc_act: bool
    signed_scales: bool
    bits: int  # 0: not quantized
    group_size: int
    modules: list[Module] = field(repr=False)
    loaders: list[LoaderVerdict]
    warnings: list[str]

    def to_pandas(self) -> Any:
        """A row for each module."""
        return _frame(asdict(module) for module in self.modules)

    def _repr_html_(self) -> str:
        rows = [
            (
                "model",
                f"{self.model}: {self.model_type}, {self.parameters / 1e6:.1f} million parameters, {_size(self.bytes)}",
            ),
            ("blocks", f"{self.blocks}, hidden {self.hidden}, {self.heads} heads, vocabulary {self.vocabulary}"),
            ("format", f"{self.checkpoint_format}, {self.bits} bits" if self.bits else "not quantized"),
            *((v.loader, ("yes" if v.accepts else "no") + (f": {v.reason}" if v.reason else "")) for v in self.loaders),
            *(("warning", text) for text in self.warnings),
        ]
        return table(rows)


@dataclass(frozen=True)
class Device:
    """A device of this machine that this build supports."""

    name: str
    description: str
    total_bytes: int
    free_bytes: int


def plan_from(data: Mapping[str, Any]) -> Plan:
    values = dict(data)
    values["accelerators"] = [made(PlannedDevice, device) for device in data["accelerators"]]
    values["host"] = made(PlannedDevice, data["host"])
    values["units"] = [made(Unit, unit) for unit in data["units"]]
    values["loaders"] = [made(LoaderVerdict, verdict) for verdict in data["loaders"]]
    return made(Plan, values, data=dict(data))


def report_from(data: Mapping[str, Any], places: Sequence[tuple[int, int]]) -> Report:
    """places: block and expert of each linear."""
    values = dict(data)
    values["linears"] = [_linear_from(linear, *place) for linear, place in zip(data["linears"], places)]
    values["check"] = made(Check, data["check"]) if data["check"] else None
    values["plan"] = plan_from(data["plan"])
    return made(Report, values, data=dict(data))


def comparison_from(
    model: str, quantized: str, texts: Sequence[tuple[str, Mapping[str, Any]]], disagreement: str
) -> Comparison:
    """texts: the name of each, and its figures."""
    compared = []
    for name, values in texts:
        both = {key: made(Perplexity, values[key], text=name) for key in ("model", "quantized")}
        positions = [made(Position, position) for position in values["positions"]]
        compared.append(made(TextComparison, {**values, **both, "text": name, "positions": positions}))
    return Comparison(model, quantized, compared, disagreement)


def inspection_from(values: Mapping[str, Any]) -> Inspection:
    modules = [made(Module, module) for module in values["modules"]]
    loaders = [made(LoaderVerdict, verdict) for verdict in values["loaders"]]
    return made(Inspection, {**values, "modules": modules, "loaders": loaders})


def _linear_from(values: Mapping[str, Any], block: int, expert: int) -> Linear:
    stages = [(stage["stage"], _number(stage["loss"])) for stage in values["loss_after"]]
    figures = {key: _number(values[key]) for key in ("loss", "error", "target_shift")}
    return made(Linear, {**values, **figures, "loss_after": stages, "block": block, "expert": expert})


def _draw_stages(seconds: Mapping[str, float], title: str, axes: Any) -> Any:
    if axes is None:
        return bar_chart(title, seconds, "s")
    axes.barh(list(seconds), list(seconds.values()))
    axes.set(xlabel="seconds", title=title)
    return axes


def _mean(weighted: Iterable[tuple[float, int]]) -> float:
    pairs = list(weighted)
    total = sum(weight for _, weight in pairs)
    return sum(value * weight for value, weight in pairs) / total if total else math.nan
