"""Pages that mkdocs gets without files: reference from docstrings, validation from the records of `vtwin verify`, and the navigation."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGES = {"planners": "decide", "solvers": "predict", "meshing": "build", "twin": "know"}
RECORDS = ROOT / "docs" / "validation" / "records.json"
FIRST = ("overlays.md", "guidance.md", "identifiers.md")
TUTORIALS = ("first_plan", "your_study", "opencarp_first_hour", "in_procedure", "trial", "python")


def _title(path: Path) -> str:
    """First heading of a page."""
    line = next((line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")), f"# {path.stem}")
    return line[2:].split(":")[0].strip()


def on_config(config: Any) -> Any:
    """Navigation from what is there: a page that somebody adds to docs/ is found without an entry here."""
    docs = ROOT / "docs"
    methods = sorted(p.name for p in docs.glob("*.md") if p.name not in ("index.md", "validation.md"))
    ordered = [*(n for n in FIRST if n in methods), *(n for n in methods if n not in FIRST)]
    config["nav"] = [
        {"Home": "index.md"},
        {"Tutorials": [{_title(docs / "tutorials" / f"{n}.md"): f"tutorials/{n}.md"} for n in TUTORIALS]},
        {"Methods": [{_title(docs / n): n} for n in ordered]},
        {"Numbers from the literature": "parameters.md"},
        {"Validation": "validation.md"},
        {"Reference": [{f"{name} ({what})": f"reference/{name}.md"} for name, what in PACKAGES.items()]},
    ]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add what is made, not written."""
    made = {f"reference/{name}.md": reference(name) for name in PACKAGES}
    made["parameters.md"] = parameters()
    made["validation.md"] = validation(json.loads(RECORDS.read_text(encoding="utf-8")) if RECORDS.is_file() else [])
    for place, text in made.items():
        files.append(File.generated(config, place, content=text))
    return files


def reference(package: str) -> str:
    """Every public class, function and method of a package: signature and docstring, read from the source without importing it."""
    lines = [f"# {package}", "", f"What `{package}` is for: {PACKAGES[package]}. Names that begin with an underscore are left out.", ""]
    for path in sorted((ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        entries = list(_entries(tree))
        said = ast.get_docstring(tree)
        if not entries:
            continue
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        lines += [f"## {name}", "", _safe(said or ""), ""]
        for heading, signature, doc in entries:
            lines += [f"### {heading}", "", "```python", signature, "```", "", _safe(doc), ""]
    return "\n".join(lines)


def parameters() -> str:
    """Every `NAME = Param(value, unit, low, high, source)` of the code in one table: what was taken from where, and how sure it is."""
    lines = ["# Numbers from the literature", "", "Made from the code. Where the source says so, the number was chosen here.", ""]
    lines += ["| where | name | value | range | unit | source |", "|---|---|---|---|---|---|"]
    for path in sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = {t.id: _text(n.value, {}) for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "Param":
                value, unit, low, high, source = (node.value.args + [ast.Constant("")] * 5)[:5]
                numbers = [ast.unparse(n) for n in (value, low, high)]
                cells = [".".join(path.relative_to(ROOT).with_suffix("").parts), ast.unparse(node.targets[0]), numbers[0]]
                cells += [f"{numbers[1]} to {numbers[2]}", _text(unit, texts), _text(source, texts)]
                safe = [_safe(c).replace("|", "\\|") for c in cells]
                # long names may break behind a dot or an underscore
                safe[:2] = [c.replace(".", ".<wbr>").replace("_", "_<wbr>") for c in safe[:2]]
                lines.append("| " + " | ".join(safe) + " |")
    return "\n".join(lines) + "\n"


def _text(node: ast.expr, known: dict[str, str]) -> str:
    """Text of a literal, of a name for one, or of a sum of both."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name):
        return known.get(node.id, node.id)
    if isinstance(node, ast.BinOp):
        return _text(node.left, known) + _text(node.right, known)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(v.value if isinstance(v, ast.FormattedValue) else v, known) for v in node.values)
    return ast.unparse(node)


def _safe(text: str) -> str:
    """A docstring as Markdown paragraphs: markup in it is text."""
    return text.replace("<", "&lt;").replace("[", "\\[").replace("_", "\\_").replace("*", "\\*")


def _entries(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, _signature(node), ast.get_docstring(node) or ""
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, _class(node), ast.get_docstring(node) or ""
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    yield f"{node.name}.{method.name}", _signature(method), ast.get_docstring(method) or ""


def _signature(node: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    return f"def {node.name}({ast.unparse(node.args)}){returns}"


def _class(node: ast.ClassDef) -> str:
    """The head of a class and its fields."""
    bases = ", ".join(ast.unparse(b) for b in node.bases)
    fields = [f"    {ast.unparse(item)}" for item in node.body if isinstance(item, ast.AnnAssign)]
    return "\n".join([f"class {node.name}{f'({bases})' if bases else ''}", *fields])


def validation(records: list[dict[str, Any]]) -> str:
    """The page of `vtwin verify -o docs/validation`: an overview, then every check by room, and its sources."""
    passed = sum(bool(r["passed"]) for r in records)
    lines = ["# Validation", "", "Made from the output of `vtwin verify`; the same command makes every number again.", ""]
    if not records:
        return "\n".join([*lines, "No records here: `vtwin verify -o docs/validation` makes them.", ""])
    rooms = _rooms()
    kept = {room: [r for r in records if str(r["name"]).split("/")[0] == room] for room in rooms}
    lines += [f"{passed} of {len(records)} checks pass.", "", "| room | what is checked | passed |", "|---|---|---|"]
    for room, what in rooms.items():
        share = (
            f"{sum(bool(r['passed']) for r in kept[room])} of {len(kept[room])}" if kept[room] else f"not run here: `vtwin verify {room}`"
        )
        lines.append(f"| {f'[{room}](#{room})' if kept[room] else room} | {_safe(what)} | {share} |")
    for room, mine in kept.items():
        if mine:
            lines += ["", f"## {room}", "", _safe(rooms[room]), "", *_checks(mine)]
    return "\n".join(lines) + "\n"


def _checks(records: list[dict[str, Any]]) -> list[str]:
    """The table of a room, what failed first, and under it the sources, each once."""
    sources = list(dict.fromkeys(str(r.get("source", "")) for r in records))
    lines = ["| check | value | reference | tolerance | passed | source |", "|---|---|---|---|---|---|"]
    for r in sorted(records, key=lambda r: bool(r["passed"])):
        name = str(r["name"]).split("/", 1)[-1].replace("/", " / ").replace("_", "_<wbr>")
        cells = [name, f"{_number(r['value'])} {r.get('unit', '')}", _number(r["reference"]), _number(r["tolerance"])]
        cells += ["yes" if r["passed"] else "**no**", str(sources.index(str(r.get("source", ""))) + 1)]
        lines.append("| " + " | ".join(c.replace("|", "\\|").replace("\n", " ").strip() for c in cells) + " |")
    return [*lines, "", "Sources:", "", *(f"{k}. {_safe(' '.join(source.split()))}" for k, source in enumerate(sources, 1))]


def _rooms() -> dict[str, str]:
    """Every room of checks that the program has, with the first sentence of its module, read without importing it."""
    tree = ast.parse((ROOT / "planners" / "app" / "checks.py").read_text(encoding="utf-8"))
    found = next(n.value for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "VERIFY")
    modules = ast.literal_eval(found)
    paths = {room: ROOT / Path(*module.split(".")).with_suffix(".py") for room, module in modules.items()}
    texts = {room: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "" for room, path in paths.items()}
    return {room: " ".join(text.split("\n\n")[0].split()).removeprefix(f"`vtwin verify {room}`: ") for room, text in texts.items()}


def _number(value: Any) -> str:
    return "unknown" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
