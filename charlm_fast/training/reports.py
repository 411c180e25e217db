"""What a run tells while it goes on: lines, files, checkpoints and TensorBoard."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..lm.model import CharLM
from ..text.display import shown
from . import snapshot
from .config import TrainConfig
from .runs import History, RunFiles
from .schedule import learning_rate
from .snapshot import Snapshot


def board_writer() -> Any:
    """The class that writes for TensorBoard.

    Raises:
        ValueError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "--tensorboard: TensorBoard is not installed; pip install 'charlm_fast[tensorboard]'"
        ) from error
    return SummaryWriter


def open_board(path: Path, purge_step: int = 0) -> Any:
    """A TensorBoard writer into a run's folder, which drops what was logged from a step on."""
    return board_writer()(str(path / "tensorboard"), purge_step=purge_step)


class Reports:
    """The callbacks of :func:`charlm_fast.training.fit.fit` for a run on the command line.

    Args:
        path: the run's folder.
        checksum: of the text, which goes into the checkpoints.
        begun: the checkpoint from which the run goes on.
    """

    def __init__(
        self,
        path: Path,
        config: TrainConfig,
        model: CharLM,
        checksum: int,
        history: History,
        begun: Snapshot | None,
    ) -> None:
        self.config = config
        self.model = model
        self.checksum = checksum
        samples, epoch = (
            (begun.values.get("samples", 0), begun.values["epoch"]) if begun else (0, 0)
        )
        self.board = open_board(path, epoch + 1) if config.tensorboard else None
        self.files = RunFiles(path, history, samples)

    def on_point(self, epoch: int, loss: float, seconds: float) -> None:
        self.files.add_metrics(epoch, loss, seconds)
        self._log(epoch, [("loss", loss), ("lr", learning_rate(self.config, epoch))])

    def on_report(self, epoch: int, loss: float, seconds: float) -> None:
        line = self._line(epoch, seconds, loss / math.log(2), "training")
        sample = self.model.generate(
            self.config.prime,
            self.config.sample_len,
            self.config.temperature,
            seed=((self.config.seed or 0) + epoch) % (1 << 63),
        )
        self.files.add_sample(line, sample)
        if self.board:
            self.board.add_text("sample", sample, epoch)
        tqdm.write(f"{line}\n{shown(sample)}\n", file=sys.stdout)

    def on_validation(self, epoch: int, bits: float, seconds: float) -> None:
        self.files.add_validation(epoch, bits, seconds)
        self._log(epoch, [("validation BPC", bits)])
        tqdm.write(self._line(epoch, seconds, bits, "validation"), file=sys.stdout)

    def _line(self, epoch: int, seconds: float, bits: float, text: str) -> str:
        """Where the run is, and how well it predicts which text."""
        total = self.config.n_epochs
        return (
            f"[{clock(seconds)}] epoch {epoch} of {total} ({100 * epoch / total:.0f}%): "
            f"{bits:.4f} bits per character, {text}"
        )

    def on_save(self, state: Snapshot) -> None:
        state.values["text"] = self.checksum
        self.files.save(state)

    def _log(self, epoch: int, numbers: Iterable[tuple[str, float]]) -> None:
        if self.board:
            for name, number in numbers:
                self.board.add_scalar(name, number, epoch)

    def close(self) -> None:
        self.files.close()
        if self.board:
            self.board.close()

    def rescue(self) -> str:
        """After a loss that was not finite: write the last good model, and say which it is."""
        path = self.files.path
        good = snapshot.read(path)
        if good is None:
            return "no checkpoint had been made yet"
        kept = good.kept()
        if "decoder.weight" not in kept:
            kept["decoder.weight"] = kept["encoder.weight"]
        self.model.load_state_dict(kept)
        epoch = good.values["epoch"]
        self.model.save_pretrained(
            path / "model", notes=f"The last finite parameters of a run, at epoch {epoch}."
        )
        return (
            f"{path / 'model'} holds the parameters of the last good checkpoint, at epoch {epoch}, "
            f"and --resume {path} goes on from there"
        )


def divergence(history: History, config: TrainConfig, vocab_size: int) -> str:
    """One sentence if the loss has not fallen as it does when something is learned, or nothing."""
    if not history.losses:
        return ""
    last = history.losses[-max(1, len(history.losses) // 10) :]
    end, low = statistics.fmean(last), min(history.losses)
    bits, uniform = end / math.log(2), math.log2(vocab_size)
    if bits > uniform and vocab_size > 1:
        found = (
            f"guessing every character alike would take {uniform:.2f} bits per character, and the "
            f"training ends at {bits:.2f}"
        )
    elif end > 2 * low:
        found = (
            f"the training was at {low / math.log(2):.2f} bits per character and ends at {bits:.2f}"
        )
    else:
        return ""
    return f"it has diverged: {found}; try a smaller --lr than {config.lr:g}"


def clock(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}m {int(seconds) % 60}s"
