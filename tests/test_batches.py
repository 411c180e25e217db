import pytest
import torch

from charlm_fast.lm.model import CharLM
from charlm_fast.text.corpus import Corpus
from charlm_fast.text.vocab import Vocabulary
from charlm_fast.training.batches import RandomChunks, Streams, batches
from charlm_fast.training.config import TrainConfig
from charlm_fast.training.workers import Workers


def numbered(length):
    """A text whose ids are their own positions."""
    return Corpus(torch.arange(length), Vocabulary.bytes())


def streams(length=103, rows=4, size=7, workers=None):
    config = TrainConfig(chunk_len=size, batch_size=rows, stateful=True)
    model = CharLM(256, 3, 2)
    return Streams(numbered(length), config, workers or Workers(), model)


@pytest.mark.parametrize("length, rows, size", [(103, 4, 7), (64, 1, 8), (9, 2, 8), (50, 5, 3)])
def test_streams_read_the_text_in_order(length, rows, size):
    source = streams(length, rows, size)
    steps = 3 * length // size
    read = torch.cat([source.next()[0] for _ in range(steps)])
    starts = torch.tensor([k * length // rows for k in range(rows)])
    assert torch.equal(read, (starts + torch.arange(steps * size)[:, None]) % length)


def test_streams_cover_every_character_once_a_pass():
    source = streams(96, 4, 8)
    seen = torch.cat([source.next()[0].flatten() for _ in range(3)])
    assert torch.equal(seen.sort().values, torch.arange(96))


def test_targets_are_the_next_characters():
    source = streams()
    for _ in range(40):
        ids, targets, _ = source.next()
        assert torch.equal(targets, (ids + 1) % 103)
        assert ids.dtype == targets.dtype == torch.int64


def test_the_state_is_carried_without_its_graph():
    source = streams()
    _, _, (h, c) = source.next()
    assert h.shape == c.shape == (2, 4, 3) and not h.any() and not c.any()
    weight = torch.ones((), requires_grad=True)
    source.carry((h + weight, c + 2 * weight))
    _, _, (h, c) = source.next()
    assert (h == 1).all() and (c == 2).all()
    assert not h.requires_grad and not c.requires_grad


def test_carried_chunks_are_one_long_chunk():
    """The losses of a stateful pass are those of the whole text read at once."""
    torch.manual_seed(0)
    corpus = Corpus(torch.randint(256, (85,)), Vocabulary.bytes())
    model = CharLM(256, 8, 2).double()
    config = TrainConfig(chunk_len=7, batch_size=1, stateful=True)
    source = Streams(corpus, config, Workers(), model)
    total = 0.0
    for _ in range(12):
        ids, targets, state = source.next()
        loss, state = model.loss(ids, targets, state, "sum")
        source.carry(state)
        total += float(loss.detach())
    whole, _ = model.loss(corpus.ids[:84, None], corpus.ids[1:85, None], None, "sum")
    assert total == pytest.approx(float(whole.detach()), rel=1e-12)


@pytest.mark.parametrize("stateful", [False, True])
def test_workers_share_a_batch(stateful):
    config = TrainConfig(chunk_len=7, batch_size=6, stateful=stateful, seed=5)
    model = CharLM(256, 3, 2)
    whole = batches(numbered(103), config, Workers(), model)
    parts = [batches(numbered(103), config, Workers(k, 3), model) for k in range(3)]
    for _ in range(30):
        expected = whole.next()
        found = [part.next() for part in parts]
        for place in (0, 1):
            assert torch.equal(torch.cat([f[place] for f in found], 1), expected[place])


@pytest.mark.parametrize("stateful", [False, True])
def test_saved_batches_go_on(stateful):
    config = TrainConfig(chunk_len=7, batch_size=4, stateful=stateful, seed=5)
    model = CharLM(256, 3, 2)
    first = batches(numbered(103), config, Workers(), model)
    for _ in range(20):
        first.next()
    first.carry((torch.rand(2, 4, 3), torch.rand(2, 4, 3)))
    second = batches(numbered(103), config, Workers(), model)
    second.load({name: tensor.clone() for name, tensor in first.save().items()})
    (*expected, before), (*found, after) = first.next(), second.next()
    for one, two in zip([*expected, *(before or ())], [*found, *(after or ())], strict=True):
        assert torch.equal(one, two)


def test_random_chunks_are_those_of_the_corpus():
    config = TrainConfig(chunk_len=7, batch_size=4, seed=5)
    generator = torch.Generator().manual_seed(5)
    source = RandomChunks(numbered(103), config, Workers())
    for _ in range(3):
        ids, targets = numbered(103).random_training_set(7, 4, generator)
        found = source.next()
        assert torch.equal(found[0], ids) and torch.equal(found[1], targets) and found[2] is None


def test_a_text_that_is_too_short():
    with pytest.raises(ValueError, match="^text: got 7 characters, expected at least 8"):
        streams(7, 1, 7)


def test_split_has_no_leak():
    corpus = numbered(1000)
    text, held_out = corpus.split(0.1)
    assert text.ids.tolist() == list(range(900)) and held_out.ids.tolist() == list(range(900, 1000))
    config = TrainConfig(chunk_len=50, batch_size=8, val_fraction=0.1)
    for stateful in (False, True):
        source = batches(
            text,
            TrainConfig(chunk_len=50, batch_size=8, stateful=stateful),
            Workers(),
            CharLM(256, 3),
        )
        for _ in range(100):
            ids, targets, _ = source.next()
            assert int(ids.max()) < 900 and int(targets.max()) < 900
    assert corpus.split(config.val_fraction)[0].ids.tolist() == text.ids.tolist()
    assert corpus.split(0.0) == (corpus, None)


@pytest.mark.parametrize("fraction", [1e-9, 0.9999])
def test_a_split_that_leaves_nothing(fraction):
    with pytest.raises(ValueError, match="^--val_fraction: got .*expected at least 2 in each"):
        numbered(1000).split(fraction)
