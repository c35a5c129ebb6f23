"""Names of files → how they are read, and what is passed over."""

from __future__ import annotations

from pathlib import PurePosixPath

TEXT = {".txt", ".text", ".rst"}
MARKDOWN = {".md", ".markdown", ".mdown"}
JSONL = {".jsonl", ".ndjson"}
COMPRESSED = {".gz", ".zst"}

LANGUAGES = {
    "ada": ".adb .ads",
    "assembly": ".asm .s",
    "c": ".c .h",
    "clojure": ".clj .cljs",
    "cpp": ".cc .cpp .cxx .hh .hpp .hxx",
    "csharp": ".cs",
    "css": ".css .scss .less",
    "cuda": ".cu .cuh",
    "dart": ".dart",
    "elixir": ".ex .exs",
    "erlang": ".erl .hrl",
    "fortran": ".f .f90 .f95 .for",
    "go": ".go",
    "groovy": ".groovy .gradle",
    "haskell": ".hs",
    "java": ".java",
    "javascript": ".js .jsx .mjs .cjs",
    "julia": ".jl",
    "kotlin": ".kt .kts",
    "lisp": ".lisp .el .scm .rkt",
    "lua": ".lua",
    "makefile": ".mk .mak",
    "matlab": ".m",
    "ocaml": ".ml .mli",
    "pascal": ".pas",
    "perl": ".pl .pm",
    "php": ".php",
    "powershell": ".ps1 .psm1",
    "protobuf": ".proto",
    "python": ".py .pyi .pyw .pyx",
    "r": ".r",
    "ruby": ".rb .rake",
    "rust": ".rs",
    "scala": ".scala",
    "shell": ".sh .bash .zsh .fish",
    "sql": ".sql",
    "swift": ".swift",
    "tcl": ".tcl",
    "terraform": ".tf",
    "typescript": ".ts .tsx",
    "vue": ".vue",
    "zig": ".zig",
}
"""Programming language → endings of its files."""

_LANGUAGE_OF = {ending: name for name, listed in LANGUAGES.items() for ending in listed.split()}
_WHOLE_NAMES = {
    "makefile": ("code", "makefile"),
    "dockerfile": ("code", "dockerfile"),
    "rakefile": ("code", "ruby"),
    "gemfile": ("code", "ruby"),
    "cmakelists.txt": ("code", "cmake"),
    "readme": ("text", ""),
    "license": ("text", ""),
    "licence": ("text", ""),
    "copying": ("text", ""),
    "news": ("text", ""),
    "changes": ("text", ""),
    "authors": ("text", ""),
}

SKIPPED_FOLDERS = {
    "node_modules": "vendored",
    "bower_components": "vendored",
    "site-packages": "vendored",
    "dist-packages": "vendored",
    "jspm_packages": "vendored",
    "__pycache__": "generated",
    "__pypackages__": "vendored",
}
"""Folders that are never entered, with the reason that the report counts."""

SKIPPED_CODE_FOLDERS = {
    "vendor": "vendored",
    "vendored": "vendored",
    "third_party": "vendored",
    "third-party": "vendored",
    "external": "vendored",
    "build": "generated",
    "dist": "generated",
    "target": "generated",
}
"""Folders whose *code* is passed over; text in a folder of such a name may well be wanted."""

_GENERATED_ENDINGS = ("_pb2.py", "_pb2_grpc.py", ".pb.go", ".pb.cc", ".pb.h", ".g.dart")
_MINIFIED_ENDINGS = (".min.js", ".min.css", ".bundle.js", ".min.mjs")


def format_of(name: str) -> str:
    """Name of a file → `text`, `markdown`, `code`, `jsonl`, `parquet`, or "" where unknown.

    >>> [format_of(n) for n in ("a.txt", "b.md", "c.PY", "d.jsonl.gz", "Makefile", "e.png")]
    ['text', 'markdown', 'code', 'jsonl', 'code', '']
    """
    path = PurePosixPath(name.lower())
    if path.name in _WHOLE_NAMES:
        return _WHOLE_NAMES[path.name][0]
    ending = path.suffix
    if ending in COMPRESSED and PurePosixPath(path.stem).suffix in JSONL:
        return "jsonl"
    for format_, endings in (("text", TEXT), ("markdown", MARKDOWN), ("jsonl", JSONL)):
        if ending in endings:
            return format_
    if ending == ".parquet":
        return "parquet"
    return "code" if ending in _LANGUAGE_OF else ""


def code_language(name: str) -> str:
    """Name of a source file → its programming language, or `und`.

    >>> code_language("src/main.rs"), code_language("notes")
    ('rust', 'und')
    """
    path = PurePosixPath(name.lower())
    if path.name in _WHOLE_NAMES:
        return _WHOLE_NAMES[path.name][1] or "und"
    return _LANGUAGE_OF.get(path.suffix, "und")


def machine_made(relative: str) -> str:
    """Path of a source file → why its name says that no person wrote it here, or "".

    >>> machine_made("web/jquery.min.js"), machine_made("vendor/lib.go"), machine_made("src/a.go")
    ('minified', 'vendored', '')
    """
    path = PurePosixPath(relative.lower())
    if path.name.endswith(_MINIFIED_ENDINGS):
        return "minified"
    if path.name.endswith(_GENERATED_ENDINGS):
        return "generated"
    for folder in path.parts[:-1]:
        if folder in SKIPPED_CODE_FOLDERS:
            return SKIPPED_CODE_FOLDERS[folder]
    return ""
