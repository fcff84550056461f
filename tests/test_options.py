"""Every command documents itself: each option has a help text, and ``--help`` ends with examples."""

import ast
from pathlib import Path

import pytest

from deploy import classify, demo, run_lava, run_lava_dl
from deploy.fit import __main__ as fit
from deploy.report import __main__ as report
from export import from_nir, from_torch, to_c, to_netx, to_nir
from nqlava.command.parser import Parser
from train import cifar, command, evaluate, figures, imagenet, potentials

ROOT = Path(__file__).resolve().parent.parent

PARSERS = (
    command.parser(cifar.COMMAND),
    command.parser(imagenet.COMMAND),
    potentials.parser(),
    evaluate.parser(),
    figures.parser(),
    to_netx.parser(),
    run_lava.parser(),
    classify.parser(),
    report.parser(),
    fit.parser(),
    from_torch.parser(),
    to_nir.parser(),
    from_nir.parser(),
    to_c.parser(),
    run_lava_dl.parser(),
    demo.parser(),
)


def test_every_command_is_tested_here() -> None:
    """A command is a module with a function ``main``."""
    commands = set()
    for path in (path for package in ("train", "export", "deploy") for path in (ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if "main" in functions and name != "train.command":
            commands.add(name)
    assert {parser.command for parser in PARSERS} == commands


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.command)
def test_every_option_has_a_help_text_and_the_command_has_examples(parser: Parser) -> None:
    assert [action.dest for action in parser._actions if not action.help] == []
    assert parser.description
    assert parser.examples and all(f"-m {parser.command} " in f"{example} " for example in parser.examples)
    assert parser.format_help().rstrip().endswith(parser.examples[-1])


def test_an_option_takes_the_same_kind_of_value_in_all_commands() -> None:
    kinds: dict[str, set[object]] = {}
    for parser in PARSERS:
        for action in parser._actions:
            for name in action.option_strings:
                kind = getattr(action.type, "__name__", None)
                kinds.setdefault(name, set()).add({"_positive": "int", "_layer_bits": None}.get(str(kind), kind))
    several = {name for name, found in kinds.items() if len(found) > 1}
    # --model is a network's name where one is trained, a model file where one is compared with; --check lists what is
    # refused, or is the number of samples that lava-dl judges.
    assert several == {"--model", "--check"}
