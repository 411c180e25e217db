from pathlib import Path

import curve_ends
import pytest

DOCS = Path(__file__).parent.parent / "docs"


def test_the_committed_curves_end_where_the_published_ones_do(capsys):
    assert curve_ends.main([str(DOCS / "learning_rates.csv")]) == 0
    table = capsys.readouterr().out
    assert table in (DOCS / "learning_rates.md").read_text()
    assert table.count("\n") == 2 + 5


def test_the_committed_picture_is_of_the_committed_curves(tmp_path):
    """By its pixels, where the same Matplotlib draws it."""
    image = pytest.importorskip("matplotlib.image")
    path = tmp_path / "again.png"
    assert curve_ends.main([str(DOCS / "learning_rates.csv"), "--draw", str(path)]) == 0
    ours, committed = (image.imread(p) for p in (path, DOCS / "learning_rates.png"))
    assert ours.shape == committed.shape
    assert abs(ours - committed).mean() < 0.02  # another release has other fonts


@pytest.mark.parametrize(
    "lr, end, message",
    [
        (0.001, 1.95, "does not hold: lr 0.001: curve ends within 0.12 of published\n"),
        (0.01, 1.65, "does not hold: curve ends: 0.005 < 0.01 < 0.001 < the other two\n"),
    ],
)
def test_other_ends_fail(tmp_path, capsys, lr, end, message):
    ends = {0.0001: 2.35, 0.001: 1.78, 0.005: 1.69, 0.01: 1.70, 0.1: 2.35, lr: end}
    rows = ["epoch," + ",".join(f'"lr {rate:g}, seed {s}"' for rate in ends for s in (0, 1))]
    for epoch in range(100, 1001, 100):  # the last two rows are the end
        values = [
            (e if epoch > 800 else 9) + 0.01 * (1 - 2 * s) for e in ends.values() for s in (0, 1)
        ]
        rows.append(",".join(map(str, [epoch, *values])))
    (tmp_path / "curves.csv").write_text("\n".join(rows) + "\n")
    found = curve_ends.read_ends(tmp_path / "curves.csv")
    assert {rate: sum(v) / 2 for rate, v in found.items()} == pytest.approx(ends)
    assert curve_ends.main([str(tmp_path / "curves.csv")]) == 1
    assert capsys.readouterr().err == message
