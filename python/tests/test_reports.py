"""Reports: tables, pictures, notebooks; progress bars."""

from __future__ import annotations

import math
import pickle
import sys
import types
import xml.etree.ElementTree as xml

import pytest

import gptq_cpp as gptq
from gptq_cpp.pictures import bar_chart, line_chart
from gptq_cpp.progress import Bar, Progress


def lines_of(picture) -> list[list[tuple[float, float]]]:
    root = xml.fromstring(picture.svg)
    found = [line.get("points").split() for line in root.iter("{http://www.w3.org/2000/svg}polyline")]
    return [[tuple(map(float, point.split(","))) for point in points] for points in found]


def test_a_report_draws_a_line_for_each_kind_of_linear(quantized):
    report = quantized[1]
    lines = lines_of(report.plot())
    assert len(lines) == len({linear.kind for linear in report.linears}) == 7
    assert all(len(line) == len({linear.block for linear in report.linears}) for line in lines)
    # A larger error lies higher: y grows downwards.
    kinds = list(report.errors_by_kind().values())
    for line, points in zip(lines, kinds):
        by_error = sorted(range(len(points)), key=lambda i: points[i][1])
        assert [line[i][1] for i in by_error] == sorted((y for _, y in line), reverse=True)


def test_a_picture_is_saved_as_it_is_shown(quantized, tmp_path):
    picture = quantized[1].plot()
    picture.save(tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text(encoding="utf-8") == picture.svg == picture._repr_html_()


def test_reports_show_themselves_in_notebooks(quantized, model, ids):
    out, report = quantized
    assert "same next token" in report._repr_html_() and "<svg" in report._repr_html_()
    assert "about" in gptq.plan(model, recipe=gptq.Recipe(group_size=64), calibration=ids)._repr_html_()
    assert "gptq, 4 bits" in gptq.inspect(out)._repr_html_()
    compared = gptq.compare(model, out, [[1, 2, 3, 4, 5, 6]])
    assert len(lines_of(compared.plot())) == 1
    assert "KL" in compared._repr_html_()
    assert "perplexity" in gptq.evaluate(model, [[1, 2, 3]])._repr_html_()


def test_tables_of_pandas_have_a_row_for_each_linear(quantized):
    pytest.importorskip("pandas")
    report = quantized[1]
    table = report.to_pandas()
    assert list(table["name"]) == [linear.name for linear in report.linears]
    assert table["loss_columns"].notna().all()
    assert len(gptq.inspect(quantized[0]).to_pandas()) == len(gptq.inspect(quantized[0]).modules)


def test_without_pandas_the_error_says_what_to_install(quantized, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        quantized[1].to_pandas()


def test_a_report_is_drawn_on_the_axes_of_matplotlib(quantized):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot

    axes = pyplot.subplots()[1]
    assert quantized[1].plot(ax=axes) is axes
    assert len(axes.lines) == 7


def test_reports_and_errors_survive_pickling(quantized):
    assert pickle.loads(pickle.dumps(quantized[1])) == quantized[1]
    error = pickle.loads(pickle.dumps(gptq.InputError("text", option="bits", file="f")))
    assert (type(error), str(error), error.option, error.file) == (gptq.InputError, "text", "bits", "f")


def test_charts_leave_out_what_has_no_place():
    points = [(0, 0.0), (1, math.nan), (2, 1e-3), (3, 1e-2), (4, math.inf)]
    assert [len(line) for line in lines_of(line_chart("t", {"a": points, "b": []}, "x"))] == [2]
    assert "nothing to draw" in line_chart("t", {}, "x").svg
    assert [len(line) for line in lines_of(line_chart("t", {"a": points}, "x", log=False))] == [3]
    xml.fromstring(bar_chart("<&>", {"a <b>": 2.0, "c": 1.0}, "s").svg)


PROGRESS = Progress("q_proj", 0, 2, 0.25, 0.1, 10.0, 1.0, 3.0, 1000)


def test_without_tqdm_the_bar_is_lines(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    bar = Bar("quantize")
    for _ in range(3):
        bar(PROGRESS)
    bar.close()
    assert capsys.readouterr().err == "quantize: 25 %, 0:03 left\n"


def test_with_tqdm_the_bar_is_its_own(monkeypatch):
    calls: list = []

    class Tqdm:
        def __init__(self, **options):
            self.n = 0.0
            calls.append(options["total"])

        def set_postfix_str(self, text, refresh):
            calls.append(text)

        def update(self, step):
            self.n += step
            calls.append(self.n)

        def close(self):
            calls.append("closed")

    monkeypatch.setitem(sys.modules, "tqdm", types.ModuleType("tqdm"))
    auto = types.ModuleType("tqdm.auto")
    auto.tqdm = Tqdm
    monkeypatch.setitem(sys.modules, "tqdm.auto", auto)
    bar = Bar("quantize")
    bar(PROGRESS)
    bar.close()
    assert calls == [100.0, "0:03 left, block 1/2 q_proj", 25.0, "closed"]
