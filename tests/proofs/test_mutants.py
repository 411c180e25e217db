"""A fault in the sources is refused, with the lines that meet."""

from __future__ import annotations

import re

import pytest

from .launches import PROOFS
from .mutants import MUTANTS
from .tensor_mutants import TENSOR_MUTANTS

BY_NAME = {proof.what: proof for proof in PROOFS}


@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(m, id=f"{m.launch}: {m.what}", marks=() if m.quick else pytest.mark.proofs)
        for m in (*MUTANTS, *TENSOR_MUTANTS)
    ],
)
def test_refused(mutant, prove):
    verdict = prove(BY_NAME[mutant.launch], mutant.changes)
    assert verdict.refused, verdict
    if verdict.result == "potential_race":
        said = " ".join(verdict.details)
        assert re.search(r"race: \w+\.(?:cuh?|h):\d+ and \w+\.(?:cuh?|h):\d+", said), verdict


def test_every_mutant_has_its_launch():
    assert {mutant.launch for mutant in (*MUTANTS, *TENSOR_MUTANTS)} <= set(BY_NAME)
