"""How weights become codes, as far as a user decides it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .native import JOB_OPTIONS, RECIPE_KEYS, _native, described, plain_options

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from ._keywords import RecipeOptions

PRESETS = ("default", "best", "paper", "group-aware")


class Recipe:
    __doc__ = f"""Bits, groups, grids and the order of columns: ``Recipe(bits=4, group_size=64)``.

    preset: what the keywords change: {", ".join(PRESETS)}.
    file: a recipe file, or the quantize_config.json of a quantized folder; its keys change the preset's, and the
        keywords change both.

    Keywords are those of the recipe in docs/options.md; names and meanings are those of Optimum's ``GPTQQuantizer``
    where it has them. None stands for the default.

{described(JOB_OPTIONS[key] for key in RECIPE_KEYS)}

    Raises TypeError for a keyword that is not known, InputError for a value that is not of its kind. Ranges are checked
    when a job is planned or run.
    """

    __slots__ = ("preset", "file", "options")

    preset: str
    file: str
    options: dict[str, Any]

    def __init__(
        self, preset: str = "default", *, file: str | os.PathLike[str] | None = None, **options: Unpack[RecipeOptions]
    ) -> None:
        if not isinstance(preset, str):
            raise TypeError("Recipe: the preset is a name, and options are keywords: Recipe(bits=4)")
        self.preset = preset
        self.file = os.fspath(file) if file is not None else ""
        self.options = plain_options("Recipe", options, RECIPE_KEYS)
        if "bits" in self.options and "average_bits" in self.options:
            raise TypeError("Recipe: bits and average_bits contradict each other: name the one that is meant")
        _native.check_options(self.preset, self.file, self.options)

    def replace(self, **options: Unpack[RecipeOptions]) -> Self:
        """A recipe with these options changed."""
        return type(self)(self.preset, file=self.file or None, **{**self.options, **options})

    def __repr__(self) -> str:
        parts = [] if self.preset == "default" else [repr(self.preset)]
        parts += [f"file={self.file!r}"] if self.file else []
        parts += [f"{key}={value!r}" for key, value in self.options.items()]
        return f"Recipe({', '.join(parts)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Recipe):
            return NotImplemented
        return (self.preset, self.file, self.options) == (other.preset, other.file, other.options)

    __hash__ = None  # type: ignore[assignment]
