import sys

from charlm_fast.plot import plot_losses


def test_writes_a_png_that_shows_the_curve(tmp_path):
    path = tmp_path / "loss.png"
    path.write_text("old")
    plot_losses(path, {"a": ([10, 20, 30], [4.5, 3.0, 2.0]), "b": ([10], [1.0])})
    first = path.read_bytes()
    assert first.startswith(b"\x89PNG\r\n\x1a\n")
    plot_losses(path, {"a": ([10, 20, 30], [4.5, 4.0, 2.0]), "b": ([10], [1.0])})
    assert path.read_bytes() != first
    assert [f.name for f in tmp_path.iterdir()] == ["loss.png"]
    assert "matplotlib.pyplot" not in sys.modules


def test_no_curve_yet(tmp_path):
    plot_losses(tmp_path / "loss.png", {})
    plot_losses(tmp_path / "loss.png", {"a": ([], [])})
    assert (tmp_path / "loss.png").stat().st_size > 0
