import os

import pytest

from nan_callbacks.demo.muted import muted_stderr


def test_what_compiled_code_writes_is_held_back(capfd: pytest.CaptureFixture[str]):
    with muted_stderr():
        os.write(2, b"greetings from a library\n")
    os.write(2, b"after it\n")

    assert capfd.readouterr().err == "after it\n"


def test_standard_output_goes_on(capfd: pytest.CaptureFixture[str]):
    with muted_stderr():
        print("result", flush=True)

    assert capfd.readouterr().out == "result\n"


def test_an_error_brings_out_what_was_written_before_it(capfd: pytest.CaptureFixture[str]):
    def fail():
        with muted_stderr():
            os.write(2, b"cannot open shared object\n")
            raise ImportError

    with pytest.raises(ImportError):
        fail()

    assert capfd.readouterr().err == "cannot open shared object\n"
