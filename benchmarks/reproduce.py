"""The published results of the reference, reproduced by charlm_fast and by nn.LSTM side by side.

    python benchmarks/reproduce.py --data dickens_train.txt --test dickens_test.txt

trains the nine settings of ``--custom_train`` and the five learning rates of ``--plot_loss`` with
seeds 0, 1, 2, each with our model and with PyTorch's own modules: from the same initial weights, on
the same chunks, one thread a process. It writes docs/reproduction.md and docs/reproduction.json.

Each training is one small file below ``--work``, so the command goes on where it was stopped;
``--stop_after SECONDS`` starts no training after that time. Settings that differ in temperature
alone are one training, as temperature has no part in it.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from machine import cpu_name
from torch import Tensor, nn

from charlm_fast.lm.model import CharLM
from charlm_fast.lm.scoring import bits_per_character
from charlm_fast.studies.grid import REFERENCE_LRS, REFERENCE_SETTINGS, Setting, label
from charlm_fast.studies.sweep_report import END_EPOCHS
from charlm_fast.text.corpus import Corpus, find_source, named_source
from charlm_fast.text.files import write_text
from charlm_fast.training.config import TrainConfig
from charlm_fast.training.fit import fit
from charlm_fast.training.runs import History
from charlm_fast.training.setup import build_model, flushed_denormals

SIDES = ("ours", "nn.LSTM")
# BPC of REFERENCE_SETTINGS, in its order; where two runs were published their mean.
PUBLISHED_BPC = (2.464, 2.659, 2.354, 2.630, 2.519, 2.494, 2.546, 2.453, 2.463)
# The curves' ends of REFERENCE_LRS; the last was published as 2.3 to 2.4.
PUBLISHED_ENDS = (2.35, 1.78, 1.69, 1.70, 2.35)
# The reference's own code: seconds an epoch on two Zen 4 cores, as it was measured at its defaults.
REFERENCE_EPOCH = 0.258
BPC_TOLERANCE, PEER_TOLERANCE, END_TOLERANCE = 0.05, 0.02, 0.12


class TorchCharLM(CharLM):
    """The same model on nn.Embedding, nn.LSTM, nn.Linear and cross_entropy alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lstm = nn.LSTM(self.hidden_size, self.hidden_size, self.num_layers)

    def forward(self, ids: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        y, state = self.lstm(self.encoder(ids), state)
        return self.decoder(y), state

    def _summed_loss(self, ids: Tensor, targets: Tensor, state: Any) -> tuple[Tensor, Any]:
        logits, state = self(ids, state)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"), state


def peer_of(model: CharLM) -> TorchCharLM:
    """PyTorch's modules with a model's weights."""
    peer = TorchCharLM(model.vocab_size, model.hidden_size, model.num_layers)
    peer.load_state_dict(model.state_dict())
    return peer


@dataclasses.dataclass(frozen=True)
class Training:
    """One model to train."""

    setting: tuple[tuple[str, Any], ...]  # without the temperature
    seed: int
    side: str

    def file(self) -> str:
        values = "-".join(f"{name}{value:g}" for name, value in self.setting)
        return f"{values}-seed{self.seed}-{self.side}.json"


def trained(setting: Setting) -> tuple[tuple[str, Any], ...]:
    return tuple((k, v) for k, v in setting.items() if k != "temperature")


def with_lr(lr: float) -> Setting:
    return {**REFERENCE_SETTINGS[0], "lr": lr}


def trainings(seeds: list[int]) -> list[Training]:
    """All trainings once each, seed after seed, our side and the peer's in turn."""
    settings = [*REFERENCE_SETTINGS, *(with_lr(lr) for lr in REFERENCE_LRS)]
    found = {
        Training(trained(setting), seed, side): None
        for seed in seeds
        for setting in settings
        for side in SIDES
    }
    return list(found)


def run(training: Training, config: TrainConfig, corpus: Corpus, test: Tensor) -> dict[str, Any]:
    config = dataclasses.replace(config, **dict(training.setting), seed=training.seed)
    model = build_model(config, corpus)
    if training.side == "nn.LSTM":
        model = peer_of(model)
    history = History()
    start = time.perf_counter()
    with flushed_denormals():
        fit(model, corpus, config, history)
    seconds = time.perf_counter() - start
    points = END_EPOCHS // config.plot_every
    return {
        **dict(training.setting),
        "seed": training.seed,
        "side": training.side,
        "n_epochs": config.n_epochs,
        "bpc": bits_per_character(model, test),
        "min_loss": min(history.losses),
        "end": statistics.fmean(history.losses[-points:]),
        "seconds": seconds,
        "losses": history.losses,
    }


def digest(corpus: Corpus, test: Tensor, n_epochs: int) -> str:
    """What results must have in common to be compared: texts and epochs."""
    parts = [corpus.ids.numpy().tobytes(), test.numpy().tobytes(), str(n_epochs).encode()]
    return hashlib.sha256(b"|".join(parts)).hexdigest()[:12]


def summary(results: dict[Training, dict[str, Any]], seeds: list[int]) -> dict[str, Any]:
    """The table and the curves, of what was trained so far."""

    def of(setting: Setting, side: str, key: str) -> list[float]:
        wanted = (Training(trained(setting), seed, side) for seed in seeds)
        return [results[w][key] for w in wanted if w in results]

    def row(setting: Setting, key: str) -> dict[str, Any]:
        values = {side: of(setting, side, key) for side in SIDES}
        means = {side: statistics.fmean(v) if v else None for side, v in values.items()}
        return {**setting, "runs": values, "mean": means}

    table = []
    for setting, published in zip(REFERENCE_SETTINGS, PUBLISHED_BPC, strict=True):
        losses = of(setting, "ours", "min_loss")
        low = statistics.fmean(losses) if losses else None
        table.append({**row(setting, "bpc"), "published": published, "min_loss": low})
    curves = []
    for lr, published in zip(REFERENCE_LRS, PUBLISHED_ENDS, strict=True):
        curves.append({**row(with_lr(lr), "end"), "published": published})
    return {"table": table, "curves": curves, "seconds": seconds(results, seeds)}


def seconds(results: dict[Training, dict[str, Any]], seeds: list[int]) -> dict[str, float]:
    """Time in the training loops of the table's different settings, each by its quickest seed."""
    total = dict.fromkeys(SIDES, 0.0)
    for setting in {trained(setting) for setting in REFERENCE_SETTINGS}:
        for side in SIDES:
            all_ = (Training(setting, seed, side) for seed in seeds)
            total[side] += min((results[t]["seconds"] for t in all_ if t in results), default=0)
    return total


def checks(report: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """The conditions a reproduction has to meet, each with whether it does."""
    for row in report["table"]:
        ours, peer = row["mean"]["ours"], row["mean"]["nn.LSTM"]
        if ours is None or peer is None:
            continue
        near = abs(ours - row["published"]) <= BPC_TOLERANCE
        name = label({k: row[k] for k in REFERENCE_SETTINGS[0]})
        yield f"{name}: BPC within {BPC_TOLERANCE} of published", near
        yield f"{name}: BPC within {PEER_TOLERANCE} of nn.LSTM", abs(ours - peer) <= PEER_TOLERANCE
    ends = {row["lr"]: row["mean"]["ours"] for row in report["curves"]}
    for row in report["curves"]:
        if (end := ends[row["lr"]]) is not None:
            near = abs(end - row["published"]) <= END_TOLERANCE
            yield f"lr {row['lr']:g}: curve ends within {END_TOLERANCE} of published", near
    if None not in ends.values():
        order = ends[0.005] < ends[0.01] < ends[0.001] < min(ends[0.0001], ends[0.1])
        yield "curve ends: 0.005 < 0.01 < 0.001 < the other two", order


def time_taken(report: dict[str, Any]) -> list[str]:
    """What a seed of the table costs, beside the reference."""
    ours, peer = (report["seconds"][side] / 2 for side in SIDES)
    different = len({trained(setting) for setting in REFERENCE_SETTINGS})
    hours = REFERENCE_EPOCH * report["n_epochs"] * different / 3600
    return [
        f"The table's {different} different trainings take {ours:.0f} s, two side by side on two",
        f"cores and each by its quickest seed; with nn.LSTM {peer:.0f} s. The reference's code,",
        f"at {REFERENCE_EPOCH * 1e3:.0f} ms an epoch on two cores, takes {hours:.1f} hours.",
        "",
    ]


def number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def page(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        "# The reference's results, reproduced",
        "",
        "Written by `python benchmarks/reproduce.py` with the reference's own texts; the numbers",
        "of each run are in [reproduction.json](reproduction.json). Both sides start from the same",
        "weights and see the same chunks. Means over the seeds "
        + f"{', '.join(map(str, report['seeds']))}; {report['n_epochs']} epochs each.",
        "",
        f"Trained so far: {report['done']} of {report['trainings']}. {report['machine']}",
        "",
        "## Bits per character of the test text",
        "",
        "| hidden | lr | layers | temperature | published | ours | nn.LSTM | ours, each seed |"
        " nn.LSTM, each seed | min loss (ours) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["table"]:
        each = [" ".join(number(v) for v in row["runs"][side]) for side in SIDES]
        lines.append(
            f"| {row['hidden_size']} | {row['lr']:g} | {row['n_layers']} | {row['temperature']} "
            f"| {row['published']:.3f} | {number(row['mean']['ours'])} "
            f"| {number(row['mean']['nn.LSTM'])} | {each[0]} | {each[1]} "
            f"| {number(row['min_loss'])} |"
        )
    lines += [
        "",
        "Temperature has no part in training or scoring, so the rows that differ in it alone are",
        "the same trainings; the published ones show the spread between runs.",
        "",
        *time_taken(report),
        f"## Ends of the loss curves (mean of the last {END_EPOCHS} epochs, nats per character)",
        "",
        "| lr | published | ours | nn.LSTM | ours, each seed |",
        "|---|---|---|---|---|",
    ]
    for row in report["curves"]:
        published = "2.3 to 2.4" if row["lr"] == 0.1 else f"{row['published']:.2f}"
        each_seed = " ".join(number(v) for v in row["runs"]["ours"])
        lines.append(
            f"| {row['lr']:g} | {published} | {number(row['mean']['ours'])} "
            f"| {number(row['mean']['nn.LSTM'])} | {each_seed} |"
        )
    lines += ["", "## Conditions", "", "| condition | holds |", "|---|---|"]
    lines += [f"| {name} | {'yes' if holds else '**no**'} |" for name, holds in checks(report)]
    return "\n".join(lines) + "\n"


def parse(argv: list[str] | None) -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--data", nargs="+", default=[], help="train text (else CHARLM_FAST_DATA)")
    parser.add_argument("--test", nargs="+", required=True, help="test text")
    parser.add_argument("--seeds", default="0,1,2", help="0,1,2")
    parser.add_argument("--n_epochs", type=int, default=3000)
    parser.add_argument("--work", type=Path, default=Path("runs/reproduce"), help="one file a run")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="where the report goes")
    parser.add_argument("--stop_after", type=float, default=float("inf"), metavar="SECONDS")
    parser.add_argument("--part", default="1/1", help="k/n: only each n-th training, from the k-th")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    start = time.perf_counter()
    torch.set_num_threads(1)
    config = TrainConfig(n_epochs=arguments.n_epochs, threads=1)
    corpus = Corpus.load(find_source(arguments.data))
    test = Corpus.load(named_source(arguments.test, "--test"), corpus.vocabulary).ids
    work = arguments.work / digest(corpus, test, config.n_epochs)
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    part, parts = map(int, arguments.part.split("/"))
    wanted = trainings(seeds)
    for training in wanted[part - 1 :: parts]:
        path = work / training.file()
        if path.exists():
            continue
        if time.perf_counter() - start > arguments.stop_after:
            print("stopped; the same command goes on from here", file=sys.stderr)
            break
        result = run(training, config, corpus, test)
        write_text(path, json.dumps(result) + "\n")
        print(f"{path.stem}: BPC {result['bpc']:.4f}, end {result['end']:.4f}", flush=True)
    results = {
        t: json.loads((work / t.file()).read_text()) for t in wanted if (work / t.file()).exists()
    }
    report = {
        "seeds": seeds,
        "n_epochs": config.n_epochs,
        "trainings": len(wanted),
        "done": len(results),
        "machine": f"PyTorch {torch.__version__}, {cpu_name()}, one thread a process.",
        **summary(results, seeds),
    }
    report["checks"] = dict(checks(report))
    write_text(arguments.out / "reproduction.json", json.dumps(report, indent=1) + "\n")
    write_text(arguments.out / "reproduction.md", page(report))
    failed = [name for name, holds in report["checks"].items() if not holds]
    for name in failed:
        print(f"does not hold: {name}", file=sys.stderr)
    return 1 if failed or len(results) < len(wanted) else 0


if __name__ == "__main__":
    sys.exit(main())
