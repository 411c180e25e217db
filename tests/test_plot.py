import math
import sys

import matplotlib.figure
import pytest

from charlm_fast.training.plot import plot_losses, plot_scores, smoothed


@pytest.fixture
def figures(monkeypatch):
    """All figures that were saved."""
    found = []
    save = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(
        matplotlib.figure.Figure,
        "savefig",
        lambda self, *a, **k: found.append(self) or save(self, *a, **k),
    )
    return found


def test_writes_a_png_that_shows_the_curve(tmp_path):
    path = tmp_path / "loss.png"
    path.write_text("old")
    by_others = "matplotlib.pyplot" in sys.modules
    plot_losses(path, {"a": ([10, 20, 30], [4.5, 3.0, 2.0]), "b": ([10], [1.0])})
    first = path.read_bytes()
    assert first.startswith(b"\x89PNG\r\n\x1a\n")
    plot_losses(path, {"a": ([10, 20, 30], [4.5, 4.0, 2.0]), "b": ([10], [1.0])})
    assert path.read_bytes() != first
    assert [f.name for f in tmp_path.iterdir()] == ["loss.png"]
    assert by_others or "matplotlib.pyplot" not in sys.modules


def test_no_curve_yet(tmp_path):
    plot_losses(tmp_path / "loss.png", {})
    plot_losses(tmp_path / "loss.png", {"a": ([], [])})
    assert (tmp_path / "loss.png").stat().st_size > 0


def test_at_most_ten_curves_a_figure(tmp_path, figures):
    curves = {f"curve {k}": ([1, 2], [k, k + 1]) for k in range(21)}
    names = plot_losses(tmp_path / "loss.png", curves)
    assert [n.name for n in names] == ["loss.png", "loss-2.png", "loss-3.png"]
    legends = [
        [text.get_text() for text in figure.axes[0].get_legend().get_texts()] for figure in figures
    ]
    assert [len(labels) for labels in legends] == [10, 10, 1]
    assert [label for labels in legends for label in labels] == list(curves)
    for figure in figures:
        axes = figure.axes[0]
        assert axes.get_xlabel() == "epoch" and axes.get_ylabel() == "bits per character"
        assert len({line.get_color() for line in axes.get_lines()}) == len(axes.get_lines())


def test_a_long_curve_is_its_centred_mean_with_the_points_behind(tmp_path, figures):
    epochs, losses = list(range(100)), [math.log(2) * k for k in range(100)]
    losses[50] += math.log(2)
    plot_losses(tmp_path / "loss.png", {"a": (epochs, losses)})
    faint, mean = figures[0].axes[0].get_lines()
    bits = [loss / math.log(2) for loss in losses]
    assert list(faint.get_ydata()) == bits and faint.get_alpha() < 0.5
    # On a straight line it lies on it, from the first point to the last.
    expected = [k + (45 <= k <= 55) / 11 for k in range(100)]
    assert list(mean.get_ydata()) == pytest.approx(expected)
    assert smoothed([1, 2, 3], [2, 4, 9])[1] == [2, 5, 9]
    assert "mean of 11" in figures[0].axes[0].get_legend().get_title().get_text()


def test_the_validation_has_a_curve_with_a_name(tmp_path, figures):
    losses = [3 * math.log(2), 2 * math.log(2)]
    plot_losses(
        tmp_path / "loss.png", {"run": ([1, 2], losses)}, validations={"held": [(1, 3.5), (2, 2.5)]}
    )
    training, validation = figures[0].axes[0].get_lines()
    assert list(training.get_ydata()) == pytest.approx([3, 2])
    assert list(validation.get_ydata()) == [3.5, 2.5] and validation.get_label() == "held"


def test_equal_curves_are_one_line_with_all_their_names(tmp_path, figures):
    curve = ([1, 2], [3.0, 2.0])
    plot_losses(tmp_path / "loss.png", {"a": curve, "b": ([1, 2], [4.0, 2.0]), "c": curve})
    axes = figures[0].axes[0]
    assert [line.get_label() for line in axes.get_lines()] == ["a\n= c", "b"]


def test_scores(tmp_path, figures):
    plot_scores(tmp_path / "bpc.png", {"best": [2.0, 2.2], "other": [2.5]})
    axes = figures[0].axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["best", "other"]
    notes = [text.get_text() for text in axes.texts]
    assert notes == ["mean 2.100", "2.500"]  # of one score there is no mean
    figure = figures[0]
    figure.canvas.draw()
    for text in axes.texts:
        assert text.get_window_extent().x1 < axes.get_window_extent().x1
    assert axes.yaxis_inverted() and "bits per character" in axes.get_xlabel()
    assert sorted(map(tuple, axes.collections[0].get_offsets().data)) == [
        (2, 0),
        (2.2, 0),
        (2.5, 1),
    ]
    assert (tmp_path / "bpc.png").read_bytes().startswith(b"\x89PNG")
