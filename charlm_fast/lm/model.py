"""The character-level language model: embedding, LSTM, linear head."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from ..nn import functional
from ..nn.masks import mask_like
from ..nn.modules import LSTM
from ..nn.quantize import quantize
from ..nn.recompute import in_segments
from ..ops.checks import check_integer
from ..ops.dispatch import cpu_loses, left_to_torch, lstm_keeps_bfloat16
from ..ops.registration import nothing_watches, wants_gradient
from ..text.vocab import Vocabulary
from . import checkpoint
from .children import Children
from .following import next_characters
from .parts import check_parts
from .quantized import quantization
from .saving import save
from .writing import Prime, State, write

MAX_PARAMETERS = 1 << 36  # 256 GiB in float32: above, a size is a mistake


class CharLM(nn.Module):
    """``nn.Embedding(V, H)``, an LSTM of L layers of H units, ``nn.Linear(H, V)``.

    Parameters are initialised as those three modules initialise theirs.

    Args:
        vocab_size: V.
        hidden_size: H.
        num_layers: L.
        dropout: probability, between the layers, while training.
        tie_weights: the head's weight is the embedding's.
        weight_dropout: probability, of each recurrent weight, while training: DropConnect with one
            mask a call, as in Merity, Keskar and Socher, "Regularizing and optimizing LSTM language
            models" (2018).
        output_dropout: probability, of each unit that the head reads, while training, with one mask
            a call for all steps of a row, as in Gal and Ghahramani, "A theoretically grounded
            application of dropout in recurrent neural networks" (2016).
        vocabulary: the characters of the V ids, which :meth:`generate` needs for text. With
            V = 100 ``string.printable`` unless given, with V = 256 the bytes of UTF-8.

    Raises:
        ValueError: a size is not a positive integer, a probability is not in [0, 1), or the
            vocabulary has another size.
    """

    quantized_linears = ("decoder",)  # what charlm_fast.quantize takes beside the LSTM

    def __init__(
        self,
        vocab_size: int = 100,
        hidden_size: int = 128,
        num_layers: int = 2,
        dropout: float = 0.0,
        tie_weights: bool = False,
        *,
        weight_dropout: float = 0.0,
        output_dropout: float = 0.0,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        super().__init__()
        vocab_size, hidden_size, num_layers = (
            check_integer(name, size, 1)
            for name, size in (
                ("vocab_size", vocab_size),
                ("hidden_size", hidden_size),
                ("num_layers", num_layers),
            )
        )
        count = 2 * vocab_size * hidden_size + 8 * num_layers * hidden_size * (hidden_size + 1)
        if count > MAX_PARAMETERS:
            raise ValueError(
                f"vocab_size, hidden_size, num_layers: {vocab_size}, {hidden_size}, {num_layers} "
                f"would make {count:,} parameters; choose smaller sizes"
            )
        for name, p in (
            ("dropout", dropout),
            ("weight_dropout", weight_dropout),
            ("output_dropout", output_dropout),
        ):
            if not 0.0 <= p < 1.0:
                raise ValueError(f"{name}: got {p!r}, expected a probability in [0, 1)")
        if vocabulary is None:
            vocabulary = {100: Vocabulary.printable, 256: Vocabulary.bytes}.get(
                vocab_size, lambda: None
            )()
        elif len(vocabulary) != vocab_size:
            raise ValueError(
                f"vocabulary: got {len(vocabulary)} characters, expected vocab_size = {vocab_size}"
            )
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.weight_dropout = weight_dropout
        self.output_dropout = output_dropout
        self.tie_weights = tie_weights
        self.vocabulary = vocabulary
        self._children = Children()
        self.encoder = nn.Embedding.from_pretrained(
            torch.empty(vocab_size, hidden_size), freeze=False
        )
        if not self.encoder.weight.is_meta:  # whose normal_ imports torch's compiler: a second
            self.encoder.reset_parameters()
        # nn.RNNBase warns of dropout that has no place to act.
        self.lstm = LSTM(hidden_size, hidden_size, num_layers, dropout=dropout * (num_layers > 1))
        self.decoder = nn.Linear(hidden_size, vocab_size)
        if tie_weights:
            self.decoder.weight = self.encoder.weight

    if TYPE_CHECKING:  # nn.Module's call is typed Any

        def __call__(self, ids: Tensor, state: State | None = None) -> tuple[Tensor, State]: ...

    def forward(self, ids: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Logits of the character after each one.

        Args:
            ids: (T, B) int64 in [0, V).
            state: (h, c), each (L, B, H); zeros if None.

        Returns:
            logits (T, B, V) and the state after the last step.

        Raises:
            IndexError: an id is out of range (checked on the CPU only, as in PyTorch).
            ValueError: a shape or a dtype does not fit.
        """
        fused = isinstance(ids, Tensor) and self.fuses()  # torch.fx sends no tensor
        y, state = self._hidden(ids, state) if fused else self._by_children(ids, state)
        return self.decoder(y), state

    @property
    def quantization(self) -> str | None:
        """``"int8"`` or ``"bfloat16"`` of a model by :func:`charlm_fast.quantize`, else None."""
        return quantization(self)

    def fuses(self) -> bool:
        """Whether one operation may take the place of the three modules.

        That is so where they are what they look like: a plain Embedding, this package's LSTM and a
        Linear, without hooks, parametrizations and parameters of a subclass, none wrapped or
        replaced, and no transform, trace or export at work. Else they are called one by one.
        """
        return self._children.are_plain(self)

    def loss(
        self,
        ids: Tensor,
        targets: Tensor,
        state: State | None = None,
        reduction: str = "mean",
        *,
        recompute: bool = False,
    ) -> tuple[Tensor, State]:
        """Cross-entropy in nats of ``targets``, mean or sum over all characters.

        The same as ``cross_entropy(logits, targets)`` of :meth:`forward`, but the logits of a large
        input are never held whole.

        Args:
            ids, targets: (T, B) int64 in [0, V).
            state: (h, c), each (L, B, H); zeros if None.
            reduction: ``"mean"`` or ``"sum"``.
            recompute: keep about sqrt(T) states of a long sequence in place of its activations and
                compute these again for the gradient (:mod:`charlm_fast.nn.recompute`): less memory,
                more time, and sums that differ from those without it by rounding.

        Returns:
            loss (), and the state after the last step.

        Raises:
            IndexError, ValueError: as :meth:`forward`.
        """
        if targets.shape != ids.shape:
            raise ValueError(
                f"targets: got the shape {tuple(targets.shape)}, expected that of ids, "
                f"{tuple(ids.shape)}"
            )
        self.check_integers("targets", targets)
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction: got {reduction!r}, expected 'mean' or 'sum'")
        try:
            if recompute and torch.is_grad_enabled() and ids.dim() == 2 and ids.numel():
                loss, state = in_segments(self._summed_loss, ids, targets, state)
            else:
                loss, state = self._summed_loss(ids, targets, state)
        except IndexError:  # of an operation, which can't say more than the number
            self.check_ids("ids", ids)
            self.check_ids("targets", targets)
            raise
        return (loss / ids.numel() if reduction == "mean" else loss), state

    def _summed_loss(
        self, ids: Tensor, targets: Tensor, state: State | None
    ) -> tuple[Tensor, State]:
        decoder = self.decoder
        if not self.fuses():
            y, state = self._by_children(ids, state)
            logits = decoder(y).flatten(0, 1)
            return F.cross_entropy(logits, targets.flatten(), reduction="sum"), state
        dropped = self._drops_between() or (self.training and self.output_dropout)
        if dropped or self._lowered() or self._left_to_torch(ids):
            y, state = self._hidden(ids, state)
            loss = ops.linear_cross_entropy(
                y.flatten(0, 1), decoder.weight, decoder.bias, targets.flatten(), "sum"
            )
        else:
            h, c = self._state(ids, state)
            weights = [w for layer in self._layers() for w in layer]
            loss, h, c = ops.lstm_cross_entropy(
                self.encoder.weight, weights, decoder.weight, decoder.bias, h, c, ids, targets
            )
            state = (h, c)
        return loss, state

    def _left_to_torch(self, ids: Tensor) -> bool:
        """Whether torch's own LSTM is to serve, which no operation of ours takes in."""
        weight = self.encoder.weight
        if torch.compiler.is_compiling() or (weight.is_cpu and not cpu_loses()) or ids.dim() != 2:
            return False
        gradient = wants_gradient(weight, self.lstm.all_weights[0][1])
        dtype = self._lowered() or weight.dtype
        return left_to_torch("lstm", weight.device, dtype, self.hidden_size, ids.shape[1], gradient)

    def _drops_between(self) -> bool:
        return bool(self.training and self.dropout and self.num_layers > 1)

    def _layers(self) -> list[list[Tensor]]:
        """Each layer's w_ih, w_hh, b_ih and b_hh, the recurrent weights as training drops them."""
        p = self.weight_dropout if self.training else 0.0
        return [
            [w_ih, w_hh * mask_like(w_hh, p) if p else w_hh, b_ih, b_hh]
            for w_ih, w_hh, b_ih, b_hh in self.lstm.all_weights
        ]

    def _lowered(self) -> torch.dtype | None:
        """The dtype that autocast asks for; None without it or, on the CPU, without its kernels."""
        device, dtype = self.encoder.weight.device.type, self.encoder.weight.dtype
        if dtype == torch.float64 or device == "meta" or not torch.is_autocast_enabled(device):
            return None
        lowered = torch.get_autocast_dtype(device)
        if device == "cpu" and not (lowered == torch.bfloat16 and lstm_keeps_bfloat16()):
            return None
        return lowered

    def _state(self, ids: Tensor, state: State | None) -> State:
        """The state to start from, once the form of ids is checked."""
        self._check_form(ids)
        return self.initial_state(ids.shape[1], state)

    def _check_form(self, ids: Tensor | str) -> None:
        if isinstance(ids, str):
            raise ValueError(
                f"ids: got the text {ids[:20]!r}, expected int64 ids (T, B); encode it with "
                "model.vocabulary.encode(text)[:, None], or let model.generate continue it"
            )
        if ids.dim() != 2 or ids.numel() == 0:
            raise ValueError(f"ids: got the shape {tuple(ids.shape)}, expected (T, B), not empty")
        self.check_integers("ids", ids)

    def _by_children(self, ids: Tensor, state: State | None) -> tuple[Tensor, State]:
        """As :meth:`_hidden`, by calls of the modules, whatever they are."""
        if isinstance(ids, Tensor | str):  # and nothing that torch.fx stands for it
            self._check_form(ids)
            self.check_ids("ids", ids)
        encoder, lstm = self.encoder, self.lstm
        p = self.weight_dropout if self.training else 0.0
        dropped = {
            name: weight * mask_like(weight, p)
            for name, weight in (lstm.named_parameters() if p else ())
            if name.rpartition(".")[2].startswith("weight_hh_l")
        }
        if p and not dropped:
            raise RuntimeError(
                f"weight_dropout: got {type(lstm).__name__} as lstm, expected parameters named "
                "weight_hh_l0 and on; set model.weight_dropout = 0"
            )
        x = encoder(ids)
        dtype = x.dtype
        if dropped:
            y, (h, c) = torch.func.functional_call(lstm, dropped, (x, state))
        else:
            y, (h, c) = lstm(x, state)
        return self._dropped(y, h, c, dtype)

    def _hidden(self, ids: Tensor, state: State | None) -> tuple[Tensor, State]:
        """The last layer's output (T, B, H), and the state."""
        h, c = self._state(ids, state)
        self.check_ids("ids", ids)
        embedding, layers = self.encoder.weight, self._layers()
        dtype, lowered = h.dtype, self._lowered()
        if self._left_to_torch(ids):
            x, flat = F.embedding(ids, embedding), [w for layer in layers for w in layer]
            options = (True, self.num_layers, self.dropout, self.training)
            return self._dropped(*functional.lstm(x, (h, c), flat, *options), dtype)
        few = None
        if not (
            torch.is_grad_enabled()
            or lowered
            or torch.compiler.is_compiling()
            or self._drops_between()
            or not ids.is_cpu
            or ids.numel() > ops.STEP_ROWS
        ):
            flat = [w for layer in layers for w in layer]
            few = ops.lstm_steps(F.embedding(ids, embedding), h, c, flat, True)
        if few is None:
            layers = [[w_ih, w_hh, ops.add_biases(*biases)] for w_ih, w_hh, *biases in layers]
        if lowered is not None:  # the state stays as wide as the parameters
            embedding, h, c = embedding.to(lowered), h.to(lowered), c.to(lowered)
            layers = [[w.to(lowered) for w in layer] for layer in layers]
        if few is not None:
            y, h, c = few
        elif self._drops_between():
            y, states = embedding, []
            for k, layer in enumerate(layers):
                y = F.dropout(y, self.dropout) if k else y
                first = ids if k == 0 else None
                y, *last = ops.lstm(y, h[k : k + 1], c[k : k + 1], layer, ids=first)
                states.append(last)
            h, c = (torch.cat(parts) for parts in zip(*states, strict=True))
        else:
            y, h, c = ops.lstm(embedding, h, c, [w for layer in layers for w in layer], ids=ids)
        return self._dropped(y, h, c, dtype)

    def _dropped(self, y: Tensor, h: Tensor, c: Tensor, dtype: torch.dtype) -> tuple[Tensor, State]:
        """What the head reads, and the state in the dtype that it came in."""
        if self.training and self.output_dropout:
            y = y * mask_like(y[:1], self.output_dropout)
        return y, (h.to(dtype), c.to(dtype))

    def initial_state(self, batch: int, state: State | None) -> State:
        """``state``, or zeros: h and c, each (L, B, H). Raises ValueError for other shapes."""
        shape = (self.num_layers, batch, self.hidden_size)
        if state is None:
            weight = self.encoder.weight
            if not isinstance(weight, Tensor):  # a quantized module's is a method
                weight = next(self.parameters())
            h = c = weight.new_zeros(shape)
            return h, c
        h, c = state
        if h.shape != shape or c.shape != shape:
            raise ValueError(
                f"state: got the shapes {tuple(h.shape)} and {tuple(c.shape)}, "
                f"expected {shape} for both"
            )
        return h, c

    @staticmethod
    def check_integers(name: str, ids: Tensor) -> None:
        """Raise ValueError unless ids are int64."""
        if ids.dtype != torch.int64:
            raise ValueError(f"{name}: got {ids.dtype}, expected torch.int64; convert with .long()")

    def check_ids(self, name: str, ids: Tensor) -> None:
        """Raise unless ids are int64 in [0, V); the range is checked on the CPU only."""
        self.check_integers(name, ids)
        if not ids.is_cpu or ids.numel() == 0 or type(ids) is not Tensor or not nothing_watches():
            return  # reading the values would make another device wait, and some have none
        low, high = (int(bound) for bound in ids.aminmax())
        if low < 0 or high >= self.vocab_size:
            raise IndexError(
                f"{name}: got {low if low < 0 else high}, expected values from 0 to "
                f"{self.vocab_size - 1}; encode the text with the model's own vocabulary"
            )

    def generate(
        self,
        prime: Prime,
        length: int,
        temperature: float | Sequence[float] | Tensor = 0.8,
        *,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int | None = None,
        return_logprobs: bool = False,
        stop: str | Sequence[str] = (),
        state: State | None = None,
        offset: int = 0,
        return_state: bool = False,
    ) -> Any:
        """Continue a text, or several at once, character by character.

        The whole text is one call into one kernel (:func:`charlm_fast.ops.generate`), in blocks of
        some 0.1 s so that Ctrl-C is heard. On the CPU a row's text depends neither on the other
        rows nor on the number of threads.

        To go on where a text ended, keep its state and say how far its seed was used::

            text, state = model.generate("The ", 100, seed=1, return_state=True)
            text += model.generate(text[-1], 50, seed=1, state=state, offset=100)[1:]

        is the text of ``model.generate("The ", 150, seed=1)``.

        Args:
            prime: what comes first: a text, several texts of any lengths (one row each), or ids
                (P,) or (P, B), an int64 tensor, or an array or a list of integers. The vocabulary's
                :meth:`encode` folds what the model lacks.
            length: how many characters to add, at least 0.
            temperature: the logits are divided by it; 0 takes the likeliest character. About 0.8 to
                1.0 is the safer band. A number, or one for each row.
            top_k: draw from the k likeliest characters only.
            top_p: draw from the likeliest characters that together have this probability.
            min_p: draw from the characters with at least this share of the likeliest one's
                probability.
            seed: the same seed gives the same text; None draws on torch's default generator.
            return_logprobs: also return the log-probability with which each was drawn.
            stop: a text, or several; a row ends before the first of them that it writes.
            state: (h, c), each (L, B, H), of the model before it reads ``prime``; zeros if None.
            offset: how many characters were drawn with ``seed`` before.
            return_state: also return (h, c) after all characters but the last one.

        Returns:
            prime and continuation: a text, a list of texts, or ids (P + length,) or
            (P + length, B). With ``return_logprobs``, beside it, the log-probabilities (length,),
            or (length, B) for several rows. With ``stop`` rows differ in length, and several of
            them come as lists of ids (P + n,) and of log-probabilities (n,), n at most ``length``.
            With ``return_state`` then the state.

        Raises:
            ValueError: an argument is out of its range, or nothing of the prime is left.
            IndexError: an id is out of range.
        """
        return write(
            self, prime, length, temperature, top_k, top_p, min_p, seed, return_logprobs, stop,
            state, offset, return_state,
        )  # fmt: skip

    def next_characters(
        self, prime: str, k: int = 10, *, temperature: float = 1.0
    ) -> list[tuple[str, float]]:
        """The k likeliest characters after a text, each with its probability, likeliest first.

        Args:
            prime: a text of at least one character that the vocabulary knows.
            k: how many; all of a smaller vocabulary.
            temperature: the logits are divided by it, as by :meth:`generate`.

        Returns:
            (character, probability); a byte beyond ASCII of a vocabulary of bytes is ``\\xNN``.

        Raises:
            ValueError: ``k`` or ``temperature`` is out of its range, nothing of the prime is left,
                or the model has no vocabulary.
        """
        return next_characters(self, prime, k, temperature)

    def save_pretrained(self, directory: str | os.PathLike[str], *, notes: str = "") -> None:
        """Write model.safetensors, config.json (with the vocabulary) and a model card.

        Each file is written beside its old version and then renamed. A decoder that has the
        encoder's weight is saved as tied, however it came to it.

        Args:
            notes: a paragraph for the model card, such as what the model was trained on.

        Raises:
            ValueError: the model could not be loaded again, being pruned, parametrized, of several
                dtypes or with other tensors; what was there before is left as it was.
        """
        save(self, directory, notes)

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str]) -> CharLM:
        """Load what :meth:`save_pretrained` wrote, on the CPU and in evaluation mode.

        Args:
            name: a directory, or ``user/model`` on the Hugging Face Hub.

        Raises:
            CheckpointError: (a ValueError) there is no such model, or a file is truncated, foreign
                or of another shape.
        """
        directory = checkpoint.locate(name)
        config = checkpoint.read_config(directory)
        tensors = checkpoint.read_tensors(directory, config)
        dtype = config.pop("quantization", None)
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = cls(**config)
            if dtype is not None:
                model = quantize(model, dtype)
        if model.tie_weights:
            tensors["decoder.weight"] = tensors["encoder.weight"]
        model.load_state_dict(tensors, assign=True)
        if model.tie_weights:
            model.decoder.weight = model.encoder.weight
        return model.eval()

    @classmethod
    def from_reference(cls, encoder: nn.Embedding, lstm: nn.RNNBase, decoder: nn.Linear) -> CharLM:
        """A model of three plain modules, whose parameters it shares.

        Args:
            encoder: ``nn.Embedding(V, H)``.
            lstm: ``nn.LSTM(H, H, L)``, in one direction, with biases.
            decoder: ``nn.Linear(H, V)``, with a bias.

        Raises:
            ValueError: the sizes do not fit, or a module has an option that the model lacks.
        """
        vocab_size, hidden_size = check_parts(encoder, lstm, decoder)
        tied = decoder.weight is encoder.weight
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = cls(vocab_size, hidden_size, lstm.num_layers, lstm.dropout, tied)
        model.encoder, model.decoder = encoder, decoder
        for name, parameter in lstm.named_parameters():
            setattr(model.lstm, name, parameter)
        return model.train(lstm.training)
