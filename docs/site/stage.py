#!/usr/bin/env python3
"""Fills build/docs/input with what Doxygen reads: the public headers in one tree, the Markdown pages with links that
Doxygen follows, and pages made here: the contents, the layers, the examples with their output, the demos, and whatever
else of the tree a page links to.

usage: stage.py EXAMPLES
EXAMPLES is the folder of the built examples. Runs at the root of the tree; fails where a link leads nowhere.
"""

import re
import subprocess
import sys
from pathlib import Path

INPUT = Path("build/docs/input")
SKIPPED = {".git", "build", "out"}
# Files of a linked folder that get a page of their own; others are only named.
SHOWN = {".hpp", ".cpp", ".cu", ".cmake", ".txt", ".py", ".sh"}
problems = []
made = {}     # the pages made here: path or folder of the tree -> what Doxygen calls it
waiting = []  # of these, the ones that are still to be written


def find(pattern):
    return sorted(p for p in Path(".").glob(pattern) if not SKIPPED & set(p.parts))


def read(path):
    return path.read_text(encoding="utf-8")


def write(path, text):
    file = INPUT / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n", encoding="utf-8")


# A header's name is its path below include/.
headers = {p.relative_to(root).as_posix(): p
           for root in [Path("include"), *find("backends/*/include")] for p in sorted(root.rglob("*.hpp"))}
header_names = {path: name for name, path in headers.items()}
pages = find("**/*.md")
# The pages in the order of the contents: what is named here first, then folder by folder; within a folder as plumb.hpp lists the headers.
FIRST = ["README.md", "docs/architecture.md", "docs/peers.md", "docs/options.md", "docs/verification.md", "docs/lab.md"]
FOLDERS = [".", "docs", "docs/algorithms", "docs/demos", "docs/objectives", "docs/ops", "docs/search", "docs/interop", "docs/data", "backends"]
examples = find("examples/[0-9][0-9]_*.cpp")
demos = [p.parent for p in find("examples/*/main.cpp")]


# Links.

def identifier(path):
    return re.sub(r"\W", "_", f"page {path}").lower().removesuffix("_md")


def reference(path):
    """What Doxygen calls a file or folder of the tree; one without a page gets one."""
    if path in header_names:
        return header_names[path]
    if path not in pages and path not in made:
        made[path] = identifier(path)
        waiting.append(path)
    return made.get(path, identifier(path))


def github_anchor(heading):
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def section(path, anchor):
    return f"{identifier(path)}__{anchor}".replace("-", "_")


def anchors(page):
    without_code = re.sub(r"^```.*?^```", "", read(page), flags=re.M | re.S)
    return {github_anchor(heading) for heading in re.findall(r"^##+ (.*)$", without_code, re.M)}


def link(text, target, page):
    if re.match(r"[a-z]+:", target):
        return f"[{text}]({target})"
    file, _, anchor = target.partition("#")
    root = Path.cwd()
    path = ((root / page).parent / file).resolve() if file else root / page
    if not path.exists() or not path.is_relative_to(root):
        problems.append(f"{page}: the link to {target} leads nowhere")
        return text
    path = path.relative_to(root)
    if anchor and path in pages:
        if anchor not in anchors(path):
            problems.append(f"{page}: the link to {target} leads to no heading of {path}")
        return f"[{text}](@ref {section(path, anchor)})"
    return f"[{text}](@ref {reference(path)})"


def mention(code):
    """`core/view.hpp` in a text leads to the header."""
    name = code if code.startswith("plumb/") else f"plumb/{code}"
    return f"[`{code}`](@ref {name})" if name in headers else f"`{code}`"


def with_links(line, page):
    return re.sub(r"\[((?:`[^`]*`|[^\]`])*)\]\(([^)\s]+)\)|`([^`]+)`",
                  lambda m: mention(m[3]) if m[3] else link(m[1], m[2], page), line)


# Pages.

def stage_markdown(page):
    """Lines keep their numbers, so that what Doxygen says of a line holds for the page."""
    lines, in_code, title = [], False, True
    for line in read(page).splitlines():
        heading = re.match(r"(#+) (.*)$", line)
        if line.startswith("```"):
            in_code = not in_code
            line = f"```{{.{line[3:].strip() or 'unparsed'}}}" if in_code else line
        elif in_code:
            pass
        elif heading:
            anchor = identifier(page) if title else section(page, github_anchor(heading[2]))
            line, title = f"{heading[1]} {heading[2]} {{#{anchor}}}", False
        else:
            line = with_links(line, page)
        lines.append(line)
    write(page, "\n".join(lines))


def title_of(page):
    return re.search(r"^# (.*)$", read(page), re.M)[1].replace("`", "")


def lead(source):
    """The comment at the top of a source file."""
    comment = re.match(r"(?://.*\n)*", read(source).removeprefix("#pragma once\n"))[0]
    return "\n".join(line.removeprefix("//").removeprefix(" ") for line in comment.splitlines())


def first_sentence(text):
    return re.split(r"(?<=[.!?])\s", " ".join(text.split()), maxsplit=1)[0]


def block(text, language="unparsed"):
    return f"```{{.{language}}}\n{text.rstrip()}\n```\n"


def source(path):
    return block(read(path), "cpp" if path.suffix in {".hpp", ".cpp", ".cu"} else "unparsed")


def make(name, title, *parts):
    write(f"{name}.md", "\n\n".join([f"# {title} {{#{name}}}", *parts]))


def entry(path, title, text=""):
    return f"- [{title}](@ref {reference(path)}){': ' if text else ''}{text}"


def make_example(path, built):
    """The source, and what each program built from it prints now; a backend's variant ends in the backend's name."""
    parts = [lead(path), source(path)]
    programs = sorted(p for p in built.glob(f"{path.stem}*") if p.is_file())
    if not programs:
        problems.append(f"{path}: there is no program of it in {built}")
    for program in programs:
        run = subprocess.run([program], capture_output=True, text=True, timeout=60)
        if run.returncode != 0:
            problems.append(f"{path}: {program.name} ended with {run.returncode}: {run.stderr.strip()}")
        backend = program.name.removeprefix(path.stem).removeprefix("_")
        parts += [f"It prints{f' (on {backend})' if backend else ''}:", block(run.stdout)]
    make(made[path], path.stem.replace("_", " ", 1).replace("_", " "), *parts)


def make_demo(folder):
    parts = [lead(folder / "main.cpp"), f"`./dev demo {folder.name}` builds and runs it. Its parts:"]
    parts += [entry(p, f"`{p.name}`", first_sentence(lead(p))) for p in sorted(folder.glob("*.?pp"))]
    make(made[folder], f"Demo: {folder.name}", "\n\n".join(parts[:2]), "\n".join(parts[2:]))


def make_folder(folder):
    """What lies in a folder that a page links to."""
    lines = []
    for p in sorted(folder.iterdir()):
        if p.is_dir() or p in pages or p.suffix in SHOWN:
            lines.append(entry(p, f"`{p.name}`", title_of(p) if p in pages else ""))
        else:
            lines.append(f"- `{p.name}`")
    make(made[folder], f"{folder}/", "\n".join(lines))


def make_linked(path):
    if path.is_dir():
        make_folder(path)
    else:
        make(made[path], str(path), source(path))


def place(name, order):
    return order.index(name) if name in order else len(order)


def place_of_page(page):
    catalogue = re.findall(r"^#include <(plumb/.*?)>", read(Path("include/plumb/plumb.hpp")), re.M)
    described = re.search(r"`#include <(plumb/.*?)>`", read(page))
    return place(str(page), FIRST), place(described[1] if described else "", catalogue), page


def make_contents():
    parts, folders = [], {}
    for page in sorted(pages, key=place_of_page):
        folders.setdefault(page.parent, []).append(page)
    for folder, found in sorted(folders.items(), key=lambda f: (place(str(f[0]), FOLDERS), f[0])):
        name = "The project" if folder == Path(".") else f"{folder}/"
        parts.append(f"## {name} {{#contents_{identifier(folder)}}}")
        parts.append("\n".join(entry(p, title_of(p)) for p in found))
    make("contents", "Pages", *parts)


def make_examples():
    make("examples", "Examples and demos",
         "\n".join(entry(p, p.stem.replace("_", " "), first_sentence(lead(p))) for p in examples),
         "## Demos {#demos}",
         "\n".join(entry(p, f"`./dev demo {p.name}`", first_sentence(lead(p / "main.cpp"))) for p in demos))


# Headers and layers.

def check_comments(header):
    """What Doxygen (1.9.4) does not miss: a header's own comment, and those of its concepts and of types without members."""
    if not lead(header).strip():
        problems.append(f"{header}:2: no comment under `#pragma once` says what the header is for")
    inside_detail, commented = False, False
    for number, line in enumerate(read(header).splitlines(), 1):
        if re.match(r"(inline )?namespace .*detail", line):
            inside_detail = True
        elif line.startswith("}  // namespace"):
            inside_detail = False
        declared = re.match(r"(?:concept|struct|class|enum class) (\w+)(?![\w;<])", line)
        if declared and not commented and not inside_detail:
            problems.append(f"{header}:{number}: {declared[1]} has no comment")
        if not line.startswith(("template", "  requires")):
            commented = line.startswith("///")


def make_layers():
    """A layer is a folder of headers. What it holds stands in the table of rooms of the architecture page."""
    rooms = dict(re.findall(r"^\| `(\w+)/` \| (.*?) \|", read(Path("docs/architecture.md")), re.M))
    by_layer = {}
    for name in headers:
        by_layer.setdefault(str(Path(name).parent), []).append(name)
    order = [f"plumb/{room}" for room in rooms]
    parts, comments = ["A layer includes only those before it, see [Architecture](@ref page_docs_architecture)."], []
    for layer in sorted(by_layer, key=lambda l: (order.index(l) if l in order else len(order), l)):
        holds = rooms.get(layer.removeprefix("plumb/"), "")
        comments.append(f"/** @dir {INPUT.resolve()}/{layer}\n@details Holds {holds or 'the headers below'}.\n*/")
        parts.append(f"## {layer}/ {{#{identifier(layer)}}}")
        kind, text = ("Layer", f": {holds}") if holds else ("Folder", "")
        parts.append(f"[{kind} {layer}](@ref {INPUT}/{layer}){text}.")
        parts.append("\n".join(f"- [`{n}`](@ref {n}): {first_sentence(lead(headers[n]))}" for n in by_layer[layer]))
    make("headers", "Headers", *parts)
    write("layers.dox", "\n".join(comments))


def main():
    built = Path(sys.argv[1])
    for name, path in headers.items():
        check_comments(path)
        write(name, read(path).rstrip("\n"))
    made.update({p: identifier(p) for p in [*examples, *demos]})
    for page in pages:
        stage_markdown(page)
    for example in examples:
        make_example(example, built)
    for demo in demos:
        make_demo(demo)
    make_contents()
    make_examples()
    make_layers()
    while waiting:
        make_linked(waiting.pop())
    for problem in problems:
        print(problem)
    return bool(problems)


sys.exit(main())
