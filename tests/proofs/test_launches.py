"""No race and no deadlock in any schedule of these launches."""

from __future__ import annotations

import pytest

from .launches import PROOFS


def _each(rows):
    return [
        pytest.param(row, id=row.what, marks=() if row.quick else pytest.mark.proofs)
        for row in rows
    ]


@pytest.mark.parametrize("proof", _each(PROOFS))
def test_race_free(proof, prove):
    verdict = prove(proof)
    assert verdict.result == "race_free", verdict


def test_names_are_unique():
    assert len({proof.what for proof in PROOFS}) == len(PROOFS)
