"""Parts of a run are constructed from resolved configurations."""

import pytest

from n2n_lightning.config.construction import construct, instantiate_resolved
from n2n_lightning.files import InputError


@pytest.mark.parametrize("text", ["a${b}", "C:\\${b}", "x\\\\${b}", "a${b}c${d}", "plain\\n"])
def test_what_was_resolved_is_not_resolved_again(text):
    made = instantiate_resolved(
        {"_target_": "builtins.dict", "path": text, "more": [{"key": text}]}
    )
    assert made["path"] == text
    assert made["more"][0]["key"] == text


def refused():
    raise InputError("noise.p", 3, "must be less than 1")


def test_the_line_of_an_error_names_the_group():
    def broken():
        raise ValueError

    with pytest.raises(InputError, match=r"^model: ValueError$"):
        construct("model", broken)
    with pytest.raises(InputError, match=r"^noise\.p=3: must be less than 1$"):
        construct("data", refused)
    with pytest.raises(InputError, match=r"^callbacks\.mine: noise\.p=3: must be less than 1$"):
        construct("callbacks.mine", refused, foreign=True)


def test_other_errors_are_those_of_foreign_code():
    def missing():
        raise OSError("no such device")

    with pytest.raises(OSError, match="no such"):
        construct("model", missing)
    with pytest.raises(InputError, match=r"trainer\.logger: no such device"):
        construct("trainer.logger", missing, foreign=True)
