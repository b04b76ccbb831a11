"""The tokenizer of a folder: the library's ids, corpora in pieces, streams, and what is refused.
And the built-in bpe, whose tokenizer.json the library reads.
"""

import itertools
import json
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from conftest import TEXT
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from textgen import (
    DOCUMENT_END,
    BuildContext,
    Engine,
    PipelineError,
    PluginSet,
    UsageError,
    load,
    run,
)
from textgen_huggingface import plugin

CONTEXT = BuildContext(folder=Path.cwd())
TEXTS = st.text(st.characters(codec="utf-8")) | st.text("ab 's\n\t\x1c\u3000é🍵'", max_size=60)


def trained(parts, vocab_size, pre_tokenizer=None):
    """A byte-level BPE as the library learns it."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(parts, trainer)
    return made


LIBRARY = trained([TEXT * 20], 400)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    LIBRARY.save(str(folder / "tokenizer.json"))
    return folder


def loaded(path, *corpus):
    tokenizer = plugin.build_folder_tokenizer(plugin.FolderTokenizerConfig(path=path), CONTEXT)
    tokenizer.fit(iter(corpus or ["ignored"]))
    return tokenizer


@pytest.fixture(scope="module")
def folder(saved):
    return loaded(saved)


@given(TEXTS)
def test_round_trip(folder, text):
    ids = folder.encode(text)
    assert folder.decode(ids) == text
    assert ids.dtype == np.int32
    assert ids.tolist() == LIBRARY.encode(text).ids


def test_lone_surrogates_are_replaced(folder):
    assert folder.decode(folder.encode("a\ud800b")) == "a\N{REPLACEMENT CHARACTER}b"


@given(st.lists(TEXTS, max_size=5))
def test_a_corpus_in_pieces_is_encoded_like_the_joined_text(folder, pieces):
    joined = np.concatenate([np.empty(0, int), *folder.encode_pieces(pieces)])
    assert np.array_equal(joined, folder.encode("".join(pieces)))


def test_long_texts_are_encoded_as_the_library_does(folder):
    for text in (TEXT * 2000, "a    b " * 30_000):
        assert len(text) > 3 * 65536
        assert folder.encode(text).tolist() == LIBRARY.encode(text).ids


@given(st.lists(st.integers(0, 399), max_size=40), st.data())
def test_streams_give_whole_characters_that_join_to_the_text(folder, ids, data):
    ids = [token for token in ids if token < folder.vocab_size]
    whole = folder.decode(np.array(ids, int))
    assert whole == LIBRARY.decode(ids, skip_special_tokens=False)
    stream, pieces = folder.incremental_decoder(), []
    while ids:
        count = data.draw(st.integers(1, len(ids)))
        pieces.append(stream.decode(np.array(ids[:count], int)))
        ids = ids[count:]
    assert "".join(pieces) + stream.decode(np.array([], int), final=True) == whole


def test_a_saved_tokenizer_is_loaded_from_its_folder_or_file(saved):
    for path in (saved, saved / "tokenizer.json"):
        tokenizer = loaded(path)
        assert tokenizer.encode(TEXT).tolist() == LIBRARY.encode(TEXT).ids
        assert tokenizer.vocab_size == LIBRARY.get_vocab_size()


def test_special_tokens_are_no_text_and_none_is_added(saved, tmp_path):
    count = LIBRARY.get_vocab_size()
    special = tokenizers.Tokenizer.from_file(str(saved / "tokenizer.json"))
    special.add_special_tokens(["<|endoftext|>"])
    special.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", count)]
    )
    special.enable_truncation(3)
    special.save(str(tmp_path / "tokenizer.json"))
    tokenizer = loaded(tmp_path)
    ids = tokenizer.encode("the time<|endoftext|>machine stood still")
    assert count not in ids
    assert tokenizer.decode(ids) == "the time<|endoftext|>machine stood still"
    assert tokenizer.decode(np.array([count])) == ""
    assert tokenizer.silent_ids == [count]
    assert tokenizer.vocab_size == count + 1
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": count}))
    assert loaded(tmp_path).vocab_size == count  # the model has no row for the token


def test_a_missing_or_broken_file_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    for path in (tmp_path / "gpt2", tmp_path):
        with pytest.raises(PipelineError) as caught:
            loaded(path)
        assert caught.value.argument == "tokenizer.path"
        assert str(path) in str(caught.value)


def test_an_id_beyond_any_vocabulary_is_refused_where_it_is_read(saved, folder, tmp_path):
    state = json.loads((saved / "tokenizer.json").read_text())
    state["model"]["vocab"]["beyond"] = 1 << 22
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(PipelineError, match="4,194,304"):
        loaded(tmp_path)
    with pytest.raises(ValueError, match="4,194,304"):
        folder.from_dict(state)
    with pytest.raises(ValueError, match="line 1"):  # what the library says
        folder.from_dict({})


def test_tokenizers_that_do_not_give_a_text_back_are_refused(saved, tmp_path):
    words = tokenizers.Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.decoder = decoders.WordPiece()
    words.save(str(tmp_path / "words.json"))
    with pytest.raises(PipelineError, match="'a b'"):
        loaded(tmp_path / "words.json")
    words.model = models.WordLevel({"a": 0}, unk_token="[UNK]")  # a token that is not there
    words.save(str(tmp_path / "words.json"))
    with pytest.raises(PipelineError) as caught:
        loaded(tmp_path / "words.json")
    assert "words.json" in str(caught.value)
    lower = tokenizers.Tokenizer.from_file(str(saved / "tokenizer.json"))
    lower.normalizer = normalizers.Lowercase()
    lower.save(str(tmp_path / "lower.json"))
    with pytest.raises(PipelineError, match="'A"):
        loaded(tmp_path / "lower.json")


def test_what_needs_a_vocabulary_says_so_before_fit(saved, folder):
    tokenizer = plugin.build_folder_tokenizer(plugin.FolderTokenizerConfig(path=saved), CONTEXT)
    for use in (lambda: tokenizer.vocab_size, lambda: tokenizer.encode("a"), tokenizer.to_dict):
        with pytest.raises(ValueError, match="not fitted"):
            use()
    for bad in (-1, folder.vocab_size):
        with pytest.raises(ValueError, match=str(folder.vocab_size - 1)):
            folder.decode(np.array([bad]))


@pytest.mark.parametrize(
    ("special", "config", "end"),
    [
        (["<|endoftext|>"], None, "<|endoftext|>"),
        (["</s>", "<|im_end|>"], {"eos_token": {"content": "<|im_end|>"}}, "<|im_end|>"),
        (
            ["</s>", "<|im_end|>"],
            {"eos_token": "clock"},
            "</s>",
        ),  # a token that is not special does not end a text
        (["<|pad|>"], {}, None),
    ],
)
def test_a_saved_tokenizer_ends_documents_with_its_own_token(saved, tmp_path, special, config, end):
    own = tokenizers.Tokenizer.from_file(str(saved / "tokenizer.json"))
    own.add_special_tokens(special)
    own.post_processor = processors.ByteLevel(trim_offsets=False)
    own.save(str(tmp_path / "tokenizer.json"))
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = plugin.build_folder_tokenizer(plugin.FolderTokenizerConfig(path=tmp_path), CONTEXT)
    assert tokenizer.end_id is None
    tokenizer.fit(iter([TEXT, DOCUMENT_END, TEXT, DOCUMENT_END]))
    state = json.loads(json.dumps(tokenizer.to_dict()))
    for made in (tokenizer, tokenizer.from_dict(state)):
        assert made.end_id == (None if end is None else own.token_to_id(end))
        assert made.encode(TEXT).tolist() == own.encode(TEXT).ids
        if end is not None:
            named = f"{TEXT}{end}!"
            assert made.decode(made.encode(named)) == named
            assert made.end_id not in made.encode(named)
            assert made.decode(np.array([made.end_id])) == ""
    library = tokenizers.Tokenizer.from_str(json.dumps(state))
    assert (
        library.encode(TEXT).ids == own.encode(TEXT).ids
    )  # whoever else reads it sees no difference
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))  # that of a run on documents
    without = loaded(tmp_path)
    assert without.from_dict(without.to_dict()).end_id is without.end_id is None


def test_a_run_on_documents_with_a_saved_tokenizer_ends_its_texts(saved, tmp_path):
    own = tokenizers.Tokenizer.from_file(str(saved / "tokenizer.json"))
    own.add_special_tokens(["<|endoftext|>"])
    own.save(str(tmp_path / "tokenizer.json"))
    lines = "".join(json.dumps({"text": TEXT}) + "\n" for _ in range(12))
    (tmp_path / "texts.jsonl").write_text(lines)
    tables = {
        "output": str(tmp_path / "run"),
        "corpus": {"type": "file", "path": str(tmp_path / "texts.jsonl"), "documents": "jsonl"},
        "tokenizer": {"type": "huggingface-tokenizer", "path": str(tmp_path)},
        "data": {"window_length": 16},
        "model": {"type": "rnn", "hidden_size": 8},
        "trainer": {"type": "sgd", "length": "1 epoch"},
        "observer": [],
    }
    generator = load(run(tables).path)
    assert generator.tokenizer.end_id == own.token_to_id("<|endoftext|>")


SPACED = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]


def with_byte_fallback(special):
    """A BPE over words with a mark for the space before them, and a token for each byte."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=150, show_progress=False))
    learnt = json.loads(made.to_str())["model"]
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *learnt["vocab"]]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    merges = [tuple(pair) for pair in learnt["merges"]]
    made = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    made.add_special_tokens(special)
    return made


def llama_2():
    """A space is put before each text, and taken away again."""
    made = with_byte_fallback(["<unk>", "<s>", "</s>"])
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence([*SPACED, decoders.Strip(" ", 1, 0)])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return made


def gemma():
    """Tokens for line breaks and spaces are added to the vocabulary."""
    made = with_byte_fallback(["<pad>", "<eos>", "<bos>", "<unk>"])
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence(SPACED)
    made.add_tokens([tokenizers.AddedToken(text, normalized=False) for text in ("\n\n", "▁▁")])
    return made


def without_some_bytes():
    """Byte-level, normalising, without the bytes that SmolLM2 lacks."""
    state = json.loads(LIBRARY.to_str())
    rare = [*b"\4\6\x13\x14\x16\x1d\xc0\xc1\xf1\xf2", *range(0xF5, 0x100)]
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False)
    spelt = {chr(b): letters.pre_tokenize_str(chr(b))[0][0] for b in rare if b < 128}
    lacking = {spelt.get(chr(b), chr(b)) for b in rare}
    assert len(lacking) == 21
    kept = [token for token in state["model"]["vocab"] if token not in lacking]
    kept.append("<|endoftext|>")
    state["model"]["vocab"] = {token: index for index, token in enumerate(kept)}
    made = tokenizers.Tokenizer.from_str(json.dumps(state))
    made.normalizer = normalizers.NFC()
    made.add_special_tokens(["<|endoftext|>"])
    return made


@pytest.fixture(params=[llama_2, gemma, without_some_bytes])
def foreign(request, tmp_path):
    request.param().save(str(tmp_path / "tokenizer.json"))
    return loaded(tmp_path)


def check_scripts(tokenizer, count):
    """Strings of the world's scripts come back, whole and token by token, without special ones."""
    known = [c for c in map(chr, range(0x20000)) if unicodedata.category(c)[0] in "LMNPSZ"]
    draw = random.Random(0)
    strings = ["", " a", "▁ ▁▁", "<0x0A>", "<s>", "<unk>", "\n\n \n", "e\u0301", "a" * 300]
    for _ in range(count):
        start, words = draw.randrange(len(known)), draw.choices([" ", "", "\n", "  "], k=8)
        script = known[start : start + 60]
        strings.append("".join(draw.choice(script) + space for space in words))
    for text in strings:
        ids = tokenizer.encode(text)
        stream = tokenizer.incremental_decoder()
        pieces = [stream.decode(ids[i : i + 1]) for i in range(len(ids))]
        assert tokenizer.decode(ids) == "".join(pieces) == text
        assert not {*ids.tolist()} & {*tokenizer.silent_ids}


def test_strings_of_the_worlds_scripts_come_back_whole_and_in_streams(foreign):
    check_scripts(foreign, 5000)


@given(st.lists(TEXTS, max_size=5))
def test_pieces_of_a_tokenizer_of_words_are_encoded_like_the_joined_text(words, pieces):
    joined = np.concatenate([np.empty(0, int), *words.encode_pieces(pieces)])
    assert np.array_equal(joined, words.encode("".join(pieces)))


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    path = tmp_path_factory.mktemp("words") / "tokenizer.json"
    llama_2().save(str(path))
    return loaded(path)


def test_a_tokenizer_of_words_gives_the_ids_of_the_library_but_for_the_first_space(words):
    library = llama_2()
    text = f"e {TEXT}"
    theirs = library.encode(text, add_special_tokens=False)
    own = [library.id_to_token(index) for index in words.encode(text)]
    assert own == ["e", *theirs.tokens[1 - len(own) :]]
    assert read_by_the_library(words).encode(text, add_special_tokens=False).tokens == own


def test_what_no_tokens_spell_is_the_unknown_token_or_named(tmp_path):
    without_some_bytes().save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UsageError, match=r"U\+0004"):
        loaded(tmp_path).encode("a\4b")
    (tmp_path / "tokenizer_config.json").write_text('{"unk_token": "<|endoftext|>"}')
    tokenizer = loaded(tmp_path)
    for made in (tokenizer, tokenizer.from_dict(tokenizer.to_dict())):
        unknown = made.unknown_id
        assert made.encode("a\4b\U00050000").tolist()[1::2] == [unknown, unknown]
        assert made.decode(made.encode("a\4b")) == "a\N{REPLACEMENT CHARACTER}b"
        assert unknown not in made.encode("\N{REPLACEMENT CHARACTER}")
    assert loaded(tmp_path, TEXT, DOCUMENT_END).unknown_id is None  # it ends documents


def built_in(vocab_size=256):
    """An unfitted built-in tokenizer bpe."""
    offers = PluginSet.discover().offers()
    named = [o.component for o in offers if (o.kind, o.component.name) == ("tokenizer", "bpe")]
    return named[0].build(named[0].config(vocab_size=vocab_size), CONTEXT)


def read_by_the_library(tokenizer):
    return tokenizers.Tokenizer.from_str(json.dumps(tokenizer.to_dict()))


@pytest.mark.parametrize("documents", [False, True])
def test_the_built_in_bpe_learns_and_encodes_as_the_library_does(documents):
    story = "".join(Engine().read_corpus({"type": "story"}))
    parts = story.split("\n\n") if documents else [story]
    ours = built_in(1500)
    ours.fit(piece for part in parts for piece in (part, DOCUMENT_END)[: 1 + documents])
    library = read_by_the_library(ours)
    theirs = trained(parts, 1500, library.pre_tokenizer)
    assert (
        json.loads(theirs.to_str())["model"] | ours.to_dict()["model"]
        == json.loads(theirs.to_str())["model"]
    )
    assert ours.vocab_size == library.get_vocab_size() == 1500 + documents
    assert ours.end_id == library.token_to_id("<|endoftext|>") == (1500 if documents else None)
    ids = ours.encode(story)
    assert ids.tolist() == library.encode(story).ids == theirs.encode(story).ids
    assert library.decode(ids.tolist()) == story


def test_the_library_splits_words_where_the_built_in_bpe_does():
    """Each character of Python's Unicode: tokens join it to what stands before it, if both
    are in a word. Large alphabets of one kind, and what has no kind, are left out.
    """
    unfitted = built_in()
    unfitted.fit([])
    state = unfitted.to_dict()
    vocabulary, alphabet = state["model"]["vocab"], [*state["model"]["vocab"]]
    for pair in itertools.product("a1.ĠĊ", alphabet):  # the last two are a space and a line break
        vocabulary["".join(pair)] = len(vocabulary)
        state["model"]["merges"].append([*pair])
    ours = built_in().from_dict(state)
    known = [
        character
        for character in map(chr, range(0x20000))
        if unicodedata.category(character) not in ("Cn", "Cs", "Co")
        and not unicodedata.name(character, "").startswith(("CJK UNI", "HANGUL SYLL", "TANGUT"))
    ]
    text = "".join(f"a{c}1{c}.{c} {c}\n{c}\n" for c in known)
    assert ours.encode(text).tolist() == read_by_the_library(ours).encode(text).ids


@given(TEXTS)
def test_the_library_reads_any_text_as_the_built_in_bpe_does(text):
    assert BPE.encode(text).tolist() == READ.encode(text).ids


BPE = built_in(400)
BPE.fit([TEXT * 20])
READ = read_by_the_library(BPE)
