#!/usr/bin/env python3
"""Goes once over what Doxygen wrote: headings in order, boxes that scroll reachable by keyboard, tables that are only
layout named so, pages of folders named after the folder, nothing that needs a script, and no file that no page leads
to. Fails where the anchor of a link is missing.

usage: finish.py HTML
"""

import re
import sys
from pathlib import Path


def folder_names(html):
    """dir_<digest>.html -> folder_<path>.html"""
    names = {}
    for page in html.glob("dir_*.html"):
        path = re.search(r"<title>(\S+) ", page.read_text(encoding="utf-8"))[1]
        names[page.name] = f"folder_{path.replace('/', '_')}.html"
    return names


def with_code(link):
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", link[0])


def mended(text):
    # A header or folder is called by its path.
    path = re.search(r"<title>(\S+) (?:File|Directory) Reference", text)
    if path:
        text = re.sub(r"[^\s<>]+ (File|Directory) Reference", path[1], text)
    # The title of a page is its only h1; Doxygen makes sections of a page h1 too.
    for level in (3, 2, 1) if "<h1>" in text else ():
        text = re.sub(rf"<(/?)h{level}>", rf"<\1h{level + 1}>", text)
    text = re.sub(r'<div class="title">(.*?)</div>', r'<h1 class="title">\1</h1>', text, flags=re.S)
    text = re.sub(r'<table (class="(?:memberdecls|memname|mlabels|directory)")', r'<table role="presentation" \1', text)
    # What may scroll sideways can be reached by keyboard.
    text = re.sub(r'<(div|pre) class="fragment">', r'<\1 class="fragment" tabindex="0">', text)
    text = re.sub(r'<table class="(?:markdownTable|doxtable)">.*?</table>',
                  r'<div class="scroll" tabindex="0">\g<0></div>', text, flags=re.S)
    # Code in the text of a reference; `#include` leads to the header's page, not to its source.
    text = re.sub(r'<a class="el"[^>]*>[^<]*`[^<]*</a>', with_code, text)
    text = re.sub(r"(<code>#include [^\n]*?)_source\.html", r"\1.html", text)
    # Doxygen's list of a page's parts names some that are not there.
    text = re.sub(r'<a href="#([\w-]+)">[^<]*</a>(?: &#124;)?', lambda m: m[0] if f'id="{m[1]}"' in text else "", text)
    # Said elsewhere on the page, or of use to a script only.
    text = re.sub(r'<p class="definition">Definition in file .*?</p>|<span class="permalink">.*?</span>', "", text)
    text = re.sub(r' onclick="[^"]*"|<img src="closed.png"[^>]*>|<div class="levels">.*?</div>', "", text)
    text = re.sub(r'<span [^>]*class="arrow".*?</span>|<span class="icona">.*?</span></span>', "", text)
    return re.sub(r'<a [^>]*><span class="icon\w*"></span></a>|<span class="icon\w*"></span>', "", text)


def links(text):
    return [link.partition("#")[::2] for link in re.findall(r'(?:href|src)="([^":?]+)"', text)]


def reachable(html):
    seen, waiting = set(), ["index.html"]
    while waiting:
        name = waiting.pop()
        if name in seen or not (html / name).is_file():
            continue
        seen.add(name)
        if name.endswith(".html"):
            waiting += [file for file, _ in links((html / name).read_text(encoding="utf-8")) if file]
    return seen


def report_lost_anchors(texts):
    """LinkChecker's own check of anchors reads a page once for each anchor: a minute, where this takes a second."""
    anchors = {name: set(re.findall(r'\b(?:id|name)="([^"]+)"', text)) for name, text in texts.items()}
    lost = [f"{name}: the link to {file}#{anchor} leads to no place of the page" for name, text in texts.items()
            for file, anchor in links(text) if anchor and anchor not in anchors.get(file or name, ())]
    print("\n".join(lost + [f"{sum(map(len, map(links, texts.values())))} links in {len(texts)} pages"]))
    return bool(lost)


def main():
    html = Path(sys.argv[1])
    folders = folder_names(html)
    for page in html.glob("*.html"):
        text = mended(page.read_text(encoding="utf-8"))
        text = re.sub(r"dir_[0-9a-f]{32}\.html", lambda m: folders.get(m[0], m[0]), text)
        page.write_text(text, encoding="utf-8")
    for old, new in folders.items():
        (html / old).rename(html / new)
    kept = reachable(html)
    for file in html.rglob("*"):
        if file.is_file() and file.relative_to(html).as_posix() not in kept:
            file.unlink()
    return report_lost_anchors({page.name: page.read_text(encoding="utf-8") for page in sorted(html.glob("*.html"))})


sys.exit(main())
