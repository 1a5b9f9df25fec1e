"""Masks: how they are typed, and what they hide."""

import pytest

from n2n_lightning.config.overrides import compose_config
from n2n_lightning.data.mask import Mask
from n2n_lightning.files import InputError

DISC = ".xxx./xxxxx/xxxxx/xxxxx/.xxx."


@pytest.mark.parametrize(
    ("typed", "text", "count"),
    [
        ([1, 1], "[1,1]", 1),
        ((1, 9), "[1,9]", 9),
        ("[3,1,1]", "[3,1,1]", 3),
        ("[1, 3]", "[1,3]", 3),
        ("x", "[1,1]", 1),
        (".x./xxx/.x.", ".x./xxx/.x.", 5),
        (f"......./.{DISC.replace('/', './.')}./.......", DISC, 21),
        ("x.x.x", "x.x.x", 3),
        ("x//.x./xxx/.x.//x", "x//.x./xxx/.x.//x", 7),
        ("xxx//xxx//xxx", "[3,1,3]", 9),
    ],
)
def test_a_mask_is_typed_as_it_is_shown(typed, text, count):
    mask = Mask.of(typed)
    assert mask.text == text
    assert len(mask.offsets) == count
    assert Mask.of(mask.text) == mask


@pytest.mark.parametrize("text", ["[1,9]", DISC, "x//.x./xxx/.x.//x", "x.x.x", "auto"])
def test_every_form_can_be_typed_for_hydra(text):
    config = compose_config(["data=single", "data.noisy=a", f"data.mask={text}"])
    if text != "auto":
        value = config.data.mask
        typed = value if isinstance(value, str) else list(value)
        assert Mask.of(typed).text == text


@pytest.mark.parametrize("typed", [3, None, [2, 1], [1], "[1,2]", "xx", ".x./x.x/.x.", "x//x", ""])
def test_what_is_no_mask_is_refused_with_what_one_is(typed):
    with pytest.raises(InputError, match=r"mask.*odd numbers.*drawing"):
        Mask.of(typed)


def test_masks_are_joined_and_cut():
    cross = Mask.of(".x./xxx/.x.")
    assert cross.joined(Mask.of("[1,7]")).within(3, 5).text == ("..x../xxxxx/..x..")
    assert cross.transposable
    assert not Mask.of("[1,7]").transposable
    assert Mask.around([(0, 1, 2)]).text == "x..../..x../....x"
    assert Mask.of("[3,1,5]").plane(-1) == {(0, x) for x in range(-2, 3)}
