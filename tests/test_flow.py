"""The flow of a run: which component is built and called when."""

from components import engine_of, with_odd

from textgen import Engine

INNER = {
    "corpus": {"type": "story"},
    "tokenizer": {"type": "char"},
    "model": {"type": "rnn", "hidden_size": 4},
    "trainer": {"type": "sgd", "length": "2 steps"},
    "sampler": {"type": "top-k", "k": 3},
    "observer": {"type": "progress"},
}
NOTED = ("read", "fit", "encode_pieces", "to_dict", "from_dict", "load_tensors", "load_state")


class Noted:
    """A built-in component that notes when it is called, and closed."""

    def __init__(self, kind, inner, note):
        self.kind, self.inner, self.note = kind, inner, note

    def __getattr__(self, name):
        value = getattr(self.inner, name)
        if name not in NOTED:
            return value

        def call(*arguments):
            self.note(f"{self.kind}.{name}")
            made = value(*arguments)
            return Noted(self.kind, made, self.note) if name == "from_dict" else made

        return call

    def __call__(self, logits, history):
        self.note("sampler")
        return self.inner(logits, history)

    def train(self, model, data, context):
        self.note("trainer.train")
        return self.inner.train(model.inner, data, context)

    def observe(self, event):
        self.note(type(event).__name__)

    def close(self):
        self.note(f"{self.kind}.close")


FLOW = [
    "build corpus",
    "build tokenizer",
    "tokenizer.fit",
    "corpus.read",
    "tokenizer.to_dict",
    "tokenizer.from_dict",
    "tokenizer.to_dict",
    "corpus.read",
    "tokenizer.encode_pieces",
    "build sampler",
    "build trainer",
    "build model to train",
    "sampler",
    "tokenizer.to_dict",
    "build observer",
    "RunStarted",
    "trainer.train",
    "StepDone",
    "sampler",
    "Evaluation",
    "Checkpointed",
    "StepDone",
    "sampler",
    "Evaluation",
    "Checkpointed",
    "RunFinished",
    "observer.close",
    "model.close",
    "trainer.close",
    "tokenizer.close",
    "corpus.close",
    "build tokenizer",
    "tokenizer.from_dict",
    "build model to generate",
    "model.load_tensors",
    "sampler",
    "model.close",
    "tokenizer.close",
    "sampler.close",
]


def test_the_flow_of_a_run(tmp_path):
    flow = []

    def note(what):
        if flow[-1:] != [what]:  # how often in a row is nobody's contract
            flow.append(what)

    def builder(kind):
        def build(context):
            purpose = "" if kind != "model" else " to train" if context.training else " to generate"
            note(f"build {kind}{purpose}")
            return Noted(kind, Engine(context.plugins).build(kind, INNER[kind], context), note)

        return build

    tables = {
        "data": {"window_length": 8},
        "device": "cpu",
        "checkpoint": {"seconds": 1e6},
        "generate": {"max_new_tokens": 1},
    }
    engine = engine_of(**{kind: builder(kind) for kind in INNER})
    run = engine.run(with_odd(tables, *INNER), output=tmp_path / "run")
    run.generator.close()
    assert flow == FLOW
