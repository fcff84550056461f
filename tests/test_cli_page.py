"""docs/cli.md lists every option of every command as it is."""

import ast

import pytest

from nqlava.command.parser import Parser
from tools.cli import PAGE, page, parsers

ROOT = PAGE.parent.parent


def test_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m tools.cli writes it anew"


def test_page_has_every_command() -> None:
    """A command is a module that makes a Parser, or has a COMMAND for the one that training commands share."""
    commands = set()
    for path in (path for package in ("train", "export", "deploy") for path in (ROOT / package).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        if "main" in functions and name != "train.command":
            commands.add(name)
    assert {parser.command for parser in parsers()} == commands


@pytest.mark.parametrize("parser", parsers(), ids=lambda parser: parser.command)
def test_every_option_says_what_it_does_and_the_examples_are_of_the_command(parser: Parser) -> None:
    assert all(action.help for action in parser._actions)
    assert parser.examples and all(f"-m {parser.command} " in f"{example} " for example in parser.examples)


def test_one_name_stands_for_one_thing() -> None:
    """Options of the same name take values of the same kind in all commands, but for those that say otherwise."""
    kinds: dict[str, set[object]] = {}
    for parser in parsers():
        for action in parser._actions:
            for name in action.option_strings:
                kind = getattr(action.type, "__name__", None)
                kinds.setdefault(name, set()).add({"_layer_bits": None}.get(str(kind), kind))
    several = {name for name, found in kinds.items() if len(found) > 1}
    assert several == {"--model"}, "a network's name where one is trained, a model file where one is compared with"
