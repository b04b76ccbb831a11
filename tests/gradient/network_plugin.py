"""A plugin with modules of networks.py as models."""

from textgen import Component, NoOptions, hookimpl


def build_attention(config, context):
    from networks import Attention

    return Attention(context.vocab_size, context.seed)


def build_dropping(config, context):
    from networks import Dropping

    from textgen.gradient import GradientModel

    return GradientModel.of(Dropping(context.vocab_size, context.seed).to(context.device))


@hookimpl
def textgen_models():
    """Offer both."""
    return [
        Component("attention", NoOptions, build_attention),
        Component("dropping", NoOptions, build_dropping),
    ]
