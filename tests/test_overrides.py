"""Options as they are typed, and what is said of mistyped ones (config/)."""

from tests.conftest import run


def test_an_argument_of_the_trainer_that_is_typed_without_a_plus(tmp_path):
    done = run("train", "trainer.fast_dev_run=true", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: trainer.fast_dev_run: is given as +trainer.fast_dev_run=VALUE"
    )
