# ruff: noqa: RUF001  # letters of other scripts
"""How the corpus `file` finds out how a text is encoded, and what it says and refuses."""

import codecs
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from raising import raises

from textgen import CorpusError, Engine
from textgen_builtins.corpora.encodings import decode

PIECE = 1 << 20  # files are read in pieces of a mebibyte
MARKS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}
SAMPLES = {
    "cp1252": "L’été dernier, nous avons mangé des pâtes à la crème près de l’église. Ça "
    "suffit, dit-elle.",
    "latin-1": "El niño comió una manzana por la mañana. ¿Dónde está la estación? ¡Qué día!",
    "cp1250": "Zażółć gęślą jaźń, powiedział chłopiec. Dziś wieczór będzie piękny, a książę wróci.",
    "cp1251": "Однажды весною, в час небывало жаркого заката, на Патриарших прудах, "
    "появились два гражданина.",
    "koi8-r": "Однажды весною, в час небывало жаркого заката, на Патриарших прудах, "
    "появились два гражданина.",
    "cp1253": "Ο γέρος κάθισε στην καρέκλα και κοίταξε τη θάλασσα. Ήταν μια όμορφη ημέρα.",
    "cp1255": "בראשית ברא אלהים את השמים ואת הארץ והארץ היתה תהו ובהו.",
    "shift_jis": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    "euc_jp": "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。",
    "gbk": "道可道，非常道。名可名，非常名。无名天地之始；有名万物之母。",
    "big5": "道可道，非常道。名可名，非常名。無名天地之始；有名萬物之母。",
    "euc_kr": "나는 어제 학교에 갔다. 그리고 친구들과 함께 점심을 먹었다. 날씨가 매우 좋았다.",
}


def read(path, data, **options):
    path.write_bytes(data)
    return "".join(Engine().read_corpus({"type": "file", "path": str(path), **options}))


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"])), st.sampled_from([*MARKS, ""])
)
def test_utf8_and_what_has_a_mark_is_read_without_a_word(text, marked):
    written = MARKS[marked] + text.encode(marked) if marked else text.encode()
    found = "".join(decode([written], Path("a.txt")))
    assert found.removeprefix("\ufeff" if marked == "utf-8" else "") == text


@pytest.mark.parametrize("encoding", SAMPLES)
def test_another_encoding_is_refused_with_the_likeliest_one(tmp_path, encoding):
    path, text = tmp_path / "a.txt", (SAMPLES[encoding] + "\n") * 9
    data = text.encode(encoding)
    with raises(CorpusError, path=path) as refused:
        read(path, data)
    likeliest = str(refused.value).rpartition("encoding to its own, probably ")[2].split()[0]
    if encoding != "cp1255":  # which charset-normalizer takes for Cyrillic
        assert text.encode(likeliest) == data
    assert read(path, data, encoding=encoding) == text


def test_an_encoding_that_needs_a_mark_says_so(tmp_path):
    with raises(CorpusError, path=tmp_path / "a.txt"):
        read(tmp_path / "a.txt", "the clock".encode("utf-16-le"), encoding="utf-16")


@pytest.mark.fault(15)
@pytest.mark.parametrize(
    ("data", "offset"),
    [
        ("é".encode() * 9 + b"\xe9 " + "é".encode() * 9, 18),
        (b"a" * PIECE + "é".encode() + b"b" * PIECE + b"\xff", 2 * PIECE + 2),
        ("naïve é".encode()[:-1] + b"\n", 7),
    ],
    ids=["inside", "a later piece", "one cut"],
)
def test_no_encoding_is_advised_for_damaged_utf8(tmp_path, data, offset):
    path = tmp_path / "a.txt"
    with raises(CorpusError, path=path) as caught:
        read(path, data)
    assert f" at offset {offset} " in str(caught.value)
    assert "probably" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"%PDF-1.7 and more", "a PDF"),
        (b"PK\3\4 and more", "a ZIP archive"),
        (b"\x89PNG\r\n\0\0", "binary data"),
        (bytes(range(256)) * 4, "binary data"),
        (b"\0" * 3000, "binary data"),
    ],
)
def test_what_is_no_text_is_refused_by_name(tmp_path, data, what):
    with raises(CorpusError, path=tmp_path / "book.txt") as caught:
        read(tmp_path / "book.txt", data)
    assert what in str(caught.value)


def test_a_page_that_declares_its_encoding_is_believed_unless_it_is_utf8(tmp_path):
    page = '<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-1"><p>“naïve” €'
    polish = SAMPLES["cp1250"]
    xml = f'<?xml version="1.0" encoding="iso-8859-2"?><p>{polish}'
    for text, encoding, shown in (
        (page, "cp1252", "“naïve” €"),
        (page, "utf-8", "“naïve” €"),
        (xml, "iso-8859-2", polish),
    ):
        assert read(tmp_path / "a.html", text.encode(encoding)) == f"{shown}\n"


@pytest.mark.parametrize("codec", ["rot13", "hex", "base64", "zlib", "bz2", "idna", "undefined"])
def test_a_page_cannot_choose_another_codec(tmp_path, codec):
    with pytest.raises(CorpusError, match="0xef"):
        read(tmp_path / "a.html", f"<meta charset='{codec}'><p>na\xefve caf\xe9".encode("cp1252"))


def test_each_file_of_a_folder_has_an_encoding_of_its_own(tmp_path):
    text = f"{SAMPLES['cp1252']}\n"
    for name, encoding in (("a", "utf-8"), ("b", "utf-16"), ("c", "utf-8-sig")):
        (tmp_path / f"{name}.txt").write_text(text, encoding)
    assert "".join(Engine().read_corpus({"type": "file", "path": str(tmp_path)})) == text * 3
