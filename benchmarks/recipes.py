"""What training recipes cost and reach: the figures of docs/recipes.md.

    python benchmarks/recipes.py speed "--preset fast" "--preset fast --batch_size 8" [--torch]
    python benchmarks/recipes.py train "--preset fast" --seeds 1 2 3 --test FILE FILE [--torch]
    python benchmarks/recipes.py score RUN RUN --test FILE FILE

``speed`` trains with each recipe, flags of charlm_fast.train, for a block of steps in turn, round
after round, and prints the characters a second of each, the ratio to the first in the same round,
and how long the whole recipe would take at that speed. ``train`` trains models and scores them.
``score`` scores saved ones. A score is static and dynamic bits per character with standard errors,
and with several models the mean and the range. With --torch a second side has torch.nn.LSTM and
torch's cross-entropy in the model, all else being equal; in ``train`` --share gives it that share
of the steps, such as both make in the same time.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from machine import cpu_name, instructions

from charlm_fast.flags import parse
from charlm_fast.lm.dynamic import score_dynamic
from charlm_fast.lm.model import CharLM
from charlm_fast.lm.scoring import Evaluation, read_text, score
from charlm_fast.text.corpus import Corpus, find_source, named_source
from charlm_fast.training.config import TrainConfig
from charlm_fast.training.fit import fit
from charlm_fast.training.runs import History
from charlm_fast.training.setup import build_model, flushed_denormals

BLOCK_SECONDS = 1.0


def with_torch(model: CharLM) -> CharLM:
    """The model with torch's own LSTM, of the same weights, in the place of ours."""
    ours = model.lstm
    theirs = torch.nn.LSTM(ours.input_size, ours.hidden_size, ours.num_layers)
    theirs.load_state_dict(ours.state_dict())
    model.lstm = theirs
    return model


class Side:
    """A recipe that trains block by block."""

    def __init__(self, words: str, corpus: Corpus, torch_lstm: bool) -> None:
        self.name = words + (" (nn.LSTM)" if torch_lstm else "")
        self.config = parse(["--seed", "1", *shlex.split(words)])[1]
        self.corpus = corpus
        self.model = build_model(self.config, corpus)
        if torch_lstm:
            with_torch(self.model)
        config = self.config
        self.characters = config.batch_size * config.chunk_len * config.accumulate  # of a step
        self.steps = 3
        self.speeds: list[float] = []
        seconds = self.train()  # caches, and the first estimate
        self.steps = max(2, int(self.steps * BLOCK_SECONDS / seconds))

    def train(self) -> float:
        """A block of steps; its seconds."""
        config = dataclasses.replace(self.config, n_epochs=self.steps, warmup=0)
        return fit(self.model, self.corpus, config, History()).seconds

    def block(self) -> None:
        seconds = self.train()
        self.speeds.append(self.steps * self.characters / seconds)

    def whole(self, speed: float) -> float:
        """Seconds of the whole recipe."""
        return self.config.n_epochs * self.characters / speed


def speed(arguments: argparse.Namespace) -> None:
    corpus = Corpus.load(find_source(arguments.data), "printable")
    kinds = (False, True) if arguments.torch else (False,)
    sides = [Side(words, corpus, kind) for words in arguments.recipes for kind in kinds]
    end = time.perf_counter() + arguments.seconds
    while time.perf_counter() < end or len(sides[0].speeds) < 3:
        for side in sides:
            side.block()
    print(f"{cpu_name()} ({instructions()}), {torch.get_num_threads()} thread(s)")
    for side in sides:
        middle = statistics.median(side.speeds)
        pairs = zip(side.speeds, sides[0].speeds, strict=True)
        ratio = statistics.median(mine / first for mine, first in pairs)
        print(
            f"{side.name}: {middle:,.0f} characters/s ({min(side.speeds):,.0f} to "
            f"{max(side.speeds):,.0f} in {len(side.speeds)} blocks), {ratio:.3f} of the first; "
            f"the whole recipe {side.whole(middle):.0f} s"
        )


def trained(arguments: argparse.Namespace) -> Iterator[tuple[str, CharLM]]:
    """A model for each recipe and seed."""
    corpus = Corpus.load(find_source(arguments.data), "printable")
    for words in arguments.recipes:
        for seed in arguments.seeds:
            config: TrainConfig = parse(["--seed", str(seed), *shlex.split(words)])[1]
            steps = round(config.n_epochs * arguments.share)
            config = dataclasses.replace(config, n_epochs=steps)
            model = build_model(config, corpus)
            if arguments.torch:
                with_torch(model)
            torch.manual_seed(seed)  # dropout's masks
            with flushed_denormals():
                outcome = fit(model, corpus, config, History())
            print(f"{words}, seed {seed}: {steps} steps, {outcome.seconds:.0f} s", flush=True)
            yield words, model.eval()


def line(name: str, kind: str, results: list[Evaluation]) -> str:
    values = [r.bits_per_character for r in results]
    spread = f", {min(values):.3f} to {max(values):.3f}" if len(values) > 1 else ""
    return (
        f"{name} {kind}: {statistics.mean(values):.4f} (standard error "
        f"{results[0].standard_error:.3f}{spread}), {results[0].characters:,} characters"
    )


def show(models: list[tuple[str, CharLM]], arguments: argparse.Namespace) -> None:
    for file in arguments.test:
        texts = [read_text(model, named_source([file], "--test")).ids for _, model in models]
        for name in dict.fromkeys(name for name, _ in models):
            pairs = [(m, ids) for (n, m), ids in zip(models, texts, strict=True) if n == name]
            print(f"{Path(file).name}:")
            print("  " + line(name, "static", [score(m, t).summary() for m, t in pairs]))
            dynamic = [score_dynamic(m, t).summary() for m, t in pairs]
            print("  " + line(name, "dynamic", dynamic), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("speed", "train", "score"):
        command = commands.add_parser(name)
        if name == "score":
            command.add_argument("models", nargs="+", metavar="RUN")
        else:
            command.add_argument("recipes", nargs="+", metavar="FLAGS")
            command.add_argument("--data", nargs="+", default=[], metavar="FILE")
            command.add_argument("--torch", action="store_true")
        if name == "speed":
            command.add_argument("--seconds", type=float, default=20.0)
        else:
            command.add_argument("--test", nargs="+", default=[], metavar="FILE")
        if name == "train":
            command.add_argument("--seeds", nargs="+", type=int, default=[1])
            command.add_argument("--share", type=float, default=1.0)
        command.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    if arguments.command == "speed":
        speed(arguments)
    elif arguments.command == "train":
        show(list(trained(arguments)), arguments)
    else:
        show([(name, CharLM.from_pretrained(name)) for name in arguments.models], arguments)


if __name__ == "__main__":
    main()
