"""What the documentation names exists, and no tracked file depends on one machine or one registry."""

import importlib.util
import re
import subprocess
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CARDS = [ROOT / "train" / "pretrained" / "README.md", ROOT / "deploy" / "pretrained" / "README.md"]
LAB = sorted((ROOT / "lab").glob("*.md"))  # logs: their commands are those of the commits that they name

CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\n]*\]\(\s*<?([^)\s>]+)>?[^)\n]*\)")
# Written in pieces, so that this file passes its own test.
REGISTRIES = re.compile(r"pypi\." r"org|python" r"hosted\.|download\." r"pytorch|anaconda\." r"org")
MACHINE_PATHS = re.compile(r"(?<![\w.~/$}>-])/(?:root|home|work|opt|mnt|Users)/\w")


def code_of(page: Path) -> str:
    """Everything on the page set as code: spans and fenced blocks."""
    return "\n".join(CODE.findall(page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """Names that a link into the page can point to, as GitHub forms them from headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+\s+(.+?)\s*#*$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def module_exists(name: str) -> bool:
    """Whether ``python -m name`` finds something to run."""
    path = ROOT.joinpath(*name.split("."))
    if (ROOT / name.split(".")[0]).is_dir():
        return path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    return importlib.util.find_spec(name) is not None


def tracked_texts() -> list[tuple[str, str]]:
    """(path, content) of every text file that git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    texts = []
    for name in filter(None, listed.decode().split("\0")):
        path = ROOT / name
        if path.is_file():
            content = path.read_bytes()
            if b"\0" not in content:
                texts.append((name, content.decode("utf-8")))
    return texts


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:^|[`;&|$(]|&& )\s*make ([a-z][\w-]*)", code_of(page), re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_modules_and_scripts_exist(page: Path) -> None:
    code = code_of(page)
    modules = re.findall(r"python[\d.]* (?:-\w+ )*-m ([A-Za-z_][\w.]*\w)", code)
    assert [name for name in modules if not module_exists(name)] == []
    scripts = re.findall(r"python[\d.]* ([\w./-]+\.py)\b", code)
    assert [name for name in scripts if not (ROOT / name).is_file()] == []


@pytest.mark.parametrize("page", [*PAGES, *CARDS, *LAB], ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for link in LINK.findall(text):
        if re.match(r"[a-z][a-z+.-]*:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_paths_exist(page: Path) -> None:
    """Such as ``nqlava/reference.py`` and ``tests/lava``; files that users have, such as runs/x.pt, are others."""
    folders = "nqlava|train|export|deploy|tests|benchmarks|stress|tools|docs|lab"
    named = re.findall(rf"`((?:{folders})/(?:[\w/]+(?:\.(?:py|md|h5|zip|sh))?)?)`", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_pages_stay_short() -> None:
    """A README of one sitting, and pages for users; long tables belong to lab/."""
    words = {page: len(re.findall(r"[^\s|]+", page.read_text(encoding="utf-8"))) for page in PAGES}
    assert words.pop(ROOT / "README.md") <= 600
    assert sum(words.values()) <= 16_500


@pytest.mark.parametrize("pattern", [REGISTRIES, MACHINE_PATHS], ids=["registry hosts", "machine paths"])
def test_tracked_files_name_no(pattern: re.Pattern[str]) -> None:
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in tracked_texts()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


def test_changelog_lists_the_version_of_the_package_or_unreleased() -> None:
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert version
    assert {version[1], "Unreleased"} & set(headings)
