"""Messages and progress of a job: to a callback, to a bar, to Python's warnings and logging."""

from __future__ import annotations

import contextlib
import sys
import warnings
from types import FrameType
from typing import Any, Callable, Iterator, NamedTuple, Union

from .errors import GptqWarning


class Progress(NamedTuple):
    """Where a job is. Seconds are of the clock on the wall."""

    text: str  # the linears of the step at work: "q_proj,k_proj,v_proj"
    block: int  # the block at work, from 0
    blocks: int
    fraction: float  # of the whole job's arithmetic
    loss: float  # of the linear solved last
    tokens_per_second: float  # tokens that passed a whole block
    seconds: float
    remaining_seconds: float
    memory_bytes: int  # resident now


ProgressOption = Union[None, bool, Callable[[Progress], object]]


class Bar:
    """A bar by tqdm where that is installed (a widget in notebooks), else lines on stderr, one for each tenth."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.shown = -1
        try:
            from tqdm.auto import tqdm
        except ImportError:
            self.bar: Any = None
        else:
            with warnings.catch_warnings():  # tqdm misses widgets in some notebooks: it writes text there
                warnings.simplefilter("ignore")
                self.bar = tqdm(
                    total=100.0,
                    desc=title,
                    bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}",
                )

    def __call__(self, progress: Progress) -> None:
        percent = 100 * progress.fraction
        left = f"{progress.remaining_seconds / 60:.0f}:{progress.remaining_seconds % 60:02.0f} left"
        if self.bar is not None:
            self.bar.set_postfix_str(
                f"{left}, block {progress.block + 1}/{progress.blocks} {progress.text}", refresh=False
            )
            self.bar.update(max(0.0, percent - self.bar.n))
        elif int(percent / 10) > self.shown:
            self.shown = int(percent / 10)
            print(f"{self.title}: {percent:.0f} %, {left}", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


@contextlib.contextmanager
def listener(title: str, progress: ProgressOption) -> Iterator[tuple[Callable[[bool, str], None], Any]]:
    """The callbacks for the native module: on_message(is_warning, text) and on_progress(dict), which may be None."""
    bar = Bar(title) if progress is True or (progress is None and _shows_bars()) else None
    told = bar if bar is not None else progress
    if told not in (None, False) and not callable(told):
        raise TypeError(f"progress: give True, False or a function, not {type(told).__name__}")
    on_progress = (lambda values: told(Progress(**values))) if callable(told) else None
    try:
        yield on_message, on_progress
    finally:
        if bar is not None:
            bar.close()


def on_message(is_warning: bool, text: str) -> None:
    """Warnings become GptqWarning, other messages go to the logger "gptq_cpp" (level INFO)."""
    if is_warning:
        warnings.warn(text, GptqWarning, stacklevel=_depth_of_caller())
        return
    import logging

    logging.getLogger("gptq_cpp").info(text)


def _depth_of_caller() -> int:
    """How many frames up the caller of the package is, so that a warning names the line there."""
    depth = 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("gptq_cpp."):
        depth, frame = depth + 1, frame.f_back
    return depth


def _shows_bars() -> bool:
    """Whether somebody looks on: a terminal, or a notebook, and tqdm is installed."""
    from importlib.util import find_spec

    if find_spec("tqdm") is None:
        return False
    shell = sys.modules.get("IPython")
    in_notebook = shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"
    return in_notebook or (sys.stderr is not None and sys.stderr.isatty())
