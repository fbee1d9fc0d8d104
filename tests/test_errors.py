"""Errors reach whoever asked, from another process too."""

from __future__ import annotations

import pickle

import pytest

from zoo.errors import InputError, NotInstalledError, UnknownNameError, ZooError


@pytest.mark.parametrize(
    "error",
    [
        ZooError("a fault"),
        InputError("pairs.tsv", 3, "has one column"),
        UnknownNameError("device", "cpo", ["cpu"]),
        NotInstalledError("x is missing"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_being_sent_to_another_process(error: ZooError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
