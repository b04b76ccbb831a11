"""The command init: how a text is encoded."""

import json
import re
import tomllib

import pytest
from test_init_settings import NAMES, STORY, TALK, VERSE, text_of

from textgen import PluginSet, run
from textgen_builtins.starter.recipe import recipe

CHAT = "".join(f"[09:1{n % 9}, 3/1/24] Mum 💐: {'hm ' * (n % 9)}ok\n" for n in range(200))


@pytest.fixture
def init(textgen, tmp_path):
    """`textgen init NAME` where no package has a model to start from: the pipeline that it writes,
    and what it says.
    """
    packages = {offer.distribution for offer in PluginSet.discover().offers("run")}
    without = [f"--no-plugin={name}" for name in packages]

    def make(*arguments):
        done = textgen(*without, "init", *arguments, cwd=tmp_path)
        assert done.code == 0, done.stderr
        (made,) = tmp_path.glob("*.toml")
        assert re.fullmatch(r"[\w-]+", made.stem)
        return tomllib.loads(made.read_text(encoding="utf-8")), done.stderr

    return make


@pytest.mark.parametrize(
    ("beginning", "language"),
    [
        ("Das ist die Uhr, und der Mann hört nicht zu. ", "German"),
        ("C'est la montre de l'homme et des enfants, pas le livre. ", "French"),
        ("foo(bar), baz[1] = qux; ", ""),
    ],
)
def test_init_prints_what_a_text_is_as_json(textgen, tmp_path, beginning, language):
    (tmp_path / "my.txt").write_text("\n***\n".join(f"{beginning * 9}{n}" for n in range(12)))
    command = ("init", "my.txt", "--start", "none", "--minutes", 3, "--json")
    found = json.loads(textgen(*command, cwd=tmp_path).stdout)
    assert tmp_path.joinpath(found["pipeline"]).is_file()
    assert (found["language"], found["documents"], found["seconds"]) == (language, 12, 180)
    assert found["size"] == 12 * 9 * len(beginning) + 14
    assert found["longest"] == 9 * len(beginning) + 2
    assert [each["name"] for each in found["starts"]] == ["none"] == [found["start"]]
    assert found["starts"][0]["loss"] > 0
    assert found["sentence_words"] > 1
    assert found["speech"] == 0


def test_init_says_what_it_found_and_a_folder_holds(init, tmp_path):
    (tmp_path / "texts").mkdir()
    for name, encoding in (
        ("a.txt", "utf-8"),
        ("b.txt", "utf-16"),
        ("c.TXT", "utf-8-sig"),
        ("d.jpg", "utf-8"),
    ):
        (tmp_path / "texts" / name).write_text(STORY, encoding=encoding)
    made, said = init("texts")
    folder, short, wrote = said.splitlines()
    assert "textgen-english has a model to start from" in short
    assert re.fullmatch(r"corpus texts: 3 files, .*; skipped 1 \(d\.jpg\)", folder)
    assert wrote == "wrote texts.toml; now: textgen run texts.toml"
    assert "encoding" not in made["corpus"]


def test_the_text_may_be_the_folder_one_is_in(init, tmp_path):
    (tmp_path / "a.txt").write_text(STORY)
    made, _ = init(".", "--pipeline", "p.toml")
    assert made["corpus"]["path"] == "."


@pytest.mark.parametrize(
    ("data", "arguments", "said"),
    [
        (b"%PDF-1.7\n" + b"x" * 5000, (), "my.txt: it is a PDF, which"),
        (STORY.encode() + b"\xff", (), "so the file is damaged there: mend it"),
        (bytes(range(256)) * 20, (), "it is binary data, not plain text; see the option encoding"),
        (STORY.encode("cp1252"), (), "its own, probably cp1252 (textgen init: --encoding cp1252)"),
        (b"PK\3\4" + b"x" * 5000, (), "it is a ZIP archive: unpack it"),
        (b"\xe9" * 3000, ("--encoding", "utf-8"), "set the option encoding to its own"),
        (b"few words", (), "my.txt has 9 characters, which is too little"),
        (STORY.encode(), ("--encoding", "cp9999"), "encoding: must be"),
    ],
)
def test_init_writes_nothing_where_a_run_would_fail(textgen, tmp_path, data, arguments, said):
    (tmp_path / "my.txt").write_bytes(data)
    refused = textgen("init", "my.txt", *arguments, cwd=tmp_path)
    assert (refused.code, refused.stdout) == (2, ""), refused.stderr
    (line,) = refused.stderr.splitlines()
    assert said in line
    assert not (tmp_path / "my.toml").exists()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "id,date,text\n" + "1,2020-01-02,It rained.\n" * 200, "all columns are learnt"),
        ("a.txt", "[02/11/2026, 01:22:10] Ann: It rained.\n" * 99, "the times at the beginning"),
        ("a.txt", "Ann: It rained.\n" * 199, ""),
    ],
)
def test_init_says_what_a_table_and_a_chat_teach_besides(init, tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    _, remarks = init(name)
    assert said in remarks
    assert said or "times" not in remarks


def test_a_document_of_pages_is_refused_with_the_way_out(textgen, tmp_path):
    (tmp_path / "my.pages").write_bytes(b"PK\3\4" + b"x" * 5000)
    refused = textgen("init", "my.pages", cwd=tmp_path)
    assert (refused.code, "Pages, which exports it as Word" in refused.stderr) == (2, True)


def test_a_link_to_nothing_says_where_it_leads(textgen, tmp_path):
    (tmp_path / "my.txt").symlink_to("lost.txt")
    refused = textgen("init", "my.txt", cwd=tmp_path)
    assert refused.code == 2
    assert "my.txt is a link to lost.txt, which does not exist" in refused.stderr


@pytest.mark.parametrize(
    "name",
    [
        "con.txt",
        "{file}.txt",
        "new\nline.txt",
        "red\x1b[31m.txt",
        "\u9577" * 80 + ".txt",
        'it\'s "so".txt',
    ],
)
def test_any_name_of_a_text_gives_a_pipeline_that_reads_it(init, tmp_path, name):
    (tmp_path / name).write_text(STORY, encoding="utf-8")
    made, _ = init(name)
    assert text_of({**made["corpus"], "path": str(tmp_path / made["corpus"]["path"])}) == STORY


def test_a_program_has_the_pipeline_of_init_in_one_call(init, tmp_path, monkeypatch):
    (tmp_path / "my.txt").write_text(STORY, encoding="utf-8")
    made, _ = init("my.txt", "--minutes", 2)
    monkeypatch.chdir(tmp_path)
    assert recipe("my.txt", minutes=2, start="none") == made
    assert recipe("my.txt", minutes=3, start="none") != made


@pytest.mark.parametrize(
    ("steps", "units", "known"), [(20, 32, 0), pytest.param(200, 192, 0.7, marks=pytest.mark.slow)]
)
def test_init_without_a_text_takes_the_story_of_which_a_run_learns_the_words(
    init, tmp_path, steps, units, known
):
    made, _ = init()
    size = [f"trainer.first.length={steps} steps", f"model.first.hidden_size={units}"]
    done = run(tmp_path / "pipeline.toml", ["device=cpu", *size], output=tmp_path / "run")
    (text,) = (made.text for made in done.generations)
    words, its_words = (
        re.findall("[a-z']+", each.lower()) for each in (text, text_of(made["corpus"]))
    )
    assert (len(text), len(words) > 80) == (500, True)
    assert len([word for word in words if word in set(its_words)]) >= known * len(words)


@pytest.mark.parametrize(
    ("files", "arguments", "corpus", "said"),
    [
        ({"my.txt": NAMES}, "", {"documents": "line"}, "each of its short lines is read as a text"),
        ({"my.csv": "id,name,\n" + NAMES * 3}, "", {"documents": "line"}, "short lines"),
        ({"my.txt": NAMES}, "--documents none", {}, ""),
        ({"my.txt": TALK}, "", {}, "a conversation by its lines"),
        (
            {
                "my.txt": "".join(
                    f"[09:1{n % 9}, 3/1/24] Mum 💐: {'hm ' * (n % 9)}ok\n" for n in range(200)
                )
            },
            "",
            {},
            "a conversation by its lines",
        ),
        (
            {"my.txt": VERSE.replace("sing\n", "sing\n* * *\n\n\n")},
            "",
            {"documents": "part"},
            "between its lines of signs",
        ),
        (
            {"my.txt": VERSE.replace("sing\n", "sing\n\n\n")},
            "",
            {"documents": "part"},
            "or two empty lines",
        ),
        ({"my.txt": VERSE.replace("sing\n", "sing\n\n")}, "", {}, "--documents paragraph"),
        ({"my.txt": VERSE}, "", {}, ""),
        ({"my.txt": VERSE}, "--documents line", {"documents": "line"}, ""),
        ({"my.txt": VERSE}, "--encoding cp1252", {"encoding": "cp1252"}, ""),
        (
            {f"my/{n:02}.txt": f"{n} {STORY[:900]}" for n in range(12)},
            "",
            {"documents": "file"},
            "each of the 12 files is read as a text of its own; if it is one text, give "
            "--documents none",
        ),
        ({f"my/{n:02}.txt": STORY for n in range(3)}, "", {}, ""),
        ({"my/a.py": STORY * 9, "my/b.log": STORY}, "--glob *.log", {"glob": "*.log"}, ""),
    ],
)
def test_init_finds_out_what_is_a_text_of_its_own(init, tmp_path, files, arguments, corpus, said):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8", "surrogateescape")
    name = next(iter(files)).partition("/")[0]
    made, printed = init(name, *arguments.split())
    assert made["corpus"] == {"type": "file", "path": name, **corpus}
    guessed = [each for each in printed.splitlines() if "textgen-english" not in each]
    assert ("warning" in "".join(guessed), said in printed) == (bool(said), True)
    assert ("n" in made["generate"]) == ("documents" in corpus), "several short texts, not cut"
