"""What a run writes: checked before its model is trained, sampled while it is, and generated once it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import attrs

from textgen.contracts import checks
from textgen.errors import Fault, PipelineError, PromptError, UsageError
from textgen.generation.arguments import check_decoding
from textgen.generation.generator import Generator
from textgen.generation.prompts import check_prompt
from textgen.generation.results import Generation
from textgen.pipeline.options import DecodingOptions
from textgen.pipeline.pipeline import Pipeline
from textgen.plugin.component import BuildContext


def check_generation(pipeline: Pipeline, context: BuildContext) -> None:
    """See that what is wanted once the model is trained can be done, before anything is written or trained."""
    tokenizer, options = context.tokenizer, pipeline.generate
    assert tokenizer is not None
    faults: list[Fault] = []
    for place, choice in enumerate(pipeline.samplers):
        try:
            checks.build(choice, attrs.evolve(context, training=False))
        except PipelineError as error:
            faults += [attrs.evolve(fault, path=f"sampler[{place}].{fault.path}") for fault in error.faults]
    try:
        check_decoding(options, tokenizer.vocab_size)
    except UsageError as error:
        faults += [attrs.evolve(fault, path=f"generate.{fault.path}") for fault in error.faults]
    if faults:
        raise PipelineError(faults, pipeline.name)
    try:
        check_prompt(tokenizer, options.prompt, options.unknown_characters)
    except PromptError as error:
        error.argument = "generate.unknown_characters"
        raise


def sample_with(generator: Generator) -> Callable[[str, int], str]:
    """Continues prompts with the model as it is at the moment of the call."""

    def sample(prompt: str, max_new_tokens: int) -> str:
        return generator.generate(prompt, max_new_tokens=max_new_tokens, unknown_characters="skip").text

    return sample


def generate(pipeline: Pipeline, generator: Generator) -> Iterator[Generation]:
    """What the pipeline's `[generate]` table asks for."""
    options = {
        field.name: getattr(pipeline.generate, field.name)
        for field in attrs.fields(DecodingOptions)
        if getattr(pipeline.generate, field.name) is not None
    }
    return generator.generate_each([pipeline.generate.prompt], n=pipeline.generate.n, **options)
