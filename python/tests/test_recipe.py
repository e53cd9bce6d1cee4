"""Recipe: its keywords are those of the table, and are checked at once."""

from __future__ import annotations

import pytest

import gptq_cpp as gptq
from gptq_cpp.native import JOB_OPTIONS, RECIPE_KEYS


def test_keywords_are_those_of_the_table():
    assert {"bits", "group_size", "sym", "desc_act", "damp_percent", "dynamic", "lm_head"} <= set(RECIPE_KEYS)
    for key in RECIPE_KEYS:
        row = JOB_OPTIONS[key]
        value = {"flag": True, "integer": 4, "natural": 4, "number": 0.5, "text": "none"}[row["kind"]]
        if row["words"]:
            value = row["words"][0]
        if key == "dynamic":
            value = {"a.*": {"bits": 8}}
        if key == "group_size":
            value = 64
        assert gptq.Recipe(**{key: value}).options.keys() == {key}


def test_an_unknown_keyword_is_a_type_error_that_suggests_one():
    with pytest.raises(TypeError, match="did you mean 'group_size'"):
        gptq.Recipe(group_sise=64)
    with pytest.raises(TypeError, match="unexpected keyword argument 'zzz'$"):
        gptq.Recipe(zzz=1)


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"bits": "four"}, "bits"),
        ({"order": "random"}, "order"),
        ({"checkpoint_format": "gguf"}, ""),
        ({"alpha": "x"}, "alpha"),
    ],
)
def test_values_of_another_kind_are_refused_at_once(options, option):
    with pytest.raises(gptq.InputError) as caught:
        gptq.Recipe(**options)
    assert caught.value.option == option or not option


def test_an_unknown_preset_is_refused_with_those_there_are():
    with pytest.raises(gptq.InputError, match="default"):
        gptq.Recipe("fastest")


def test_two_kinds_of_bits_contradict_each_other():
    with pytest.raises(TypeError, match="contradict"):
        gptq.Recipe(bits=4, average_bits=3.5)


def test_a_recipe_shows_what_was_given():
    recipe = gptq.Recipe("best", bits=3, group_size=64)
    assert repr(recipe) == "Recipe('best', bits=3, group_size=64)"
    assert recipe == eval(repr(recipe), {"Recipe": gptq.Recipe})
    assert recipe.replace(bits=2).options == {"bits": 2, "group_size": 64}
    assert gptq.Recipe(bits=None) == gptq.Recipe()


def test_numbers_of_numpy_are_numbers():
    np = pytest.importorskip("numpy")
    assert gptq.Recipe(bits=np.int64(3), damp_percent=np.float32(0.5)) == gptq.Recipe(bits=3, damp_percent=0.5)
