"""Detection of code in a text and of its programming language, by the label of a fenced code block or by typical syntax.

Syntax decides only in clear cases: if the evidence is weak, or equally strong for two languages, the language is unknown.
That is accurate enough to count languages.
"""

import re
from collections.abc import Iterator

from wizardcoder_jax.evol_instruct.languages import parse_language_name

MAX_SCANNED_CHARS = 2000  # maximum number of characters scanned for typical syntax, which usually appears early
MIN_WEIGHT = 2  # minimum total weight of the matching patterns of a language

_FENCE = re.compile(
    r"^[ \t]*(?P<mark>`{3,9}|~{3,9})[ \t]*\{?\.?(?P<name>[\w.#+-]*)[^\n`]*\n(?P<code>.*?)(?:^[ \t]*(?P=mark)[`~]*[ \t]*$|\Z)",
    re.MULTILINE | re.DOTALL,
)

_CODE = re.compile(  # Every repetition is bounded, so that matching takes linear time.
    r"`[^`\n]{1,200}`|^[ \t]{0,99}(?:```|~~~)|\w\([^\n]{0,200}?\)|[{};][ \t]{0,20}$|"
    r"\w\]? {0,9}(?:[-+*/|&]?=|<-|:=) {0,9}\S|=>|->|::|<\w{1,20}[^>\n]{0,200}>",
    re.MULTILINE,
)

# Typical syntax of each language as (weight, regular expression). "^" and "$" match at every line.
_PATTERNS: dict[str, tuple[tuple[int, str], ...]] = {
    "python": (
        (2, r"^[ \t]*(?:async )?def \w+\(.*\)(?: *->.*)?:[ \t]*(?:#.*)?$"),
        (2, r"^[ \t]*(?:for \w+(?:, *\w+)* in .+|elif .+|if __name__ == .+|with .+ as \w+):[ \t]*(?:#.*)?$"),
        (2, r"^from [\w.]+ import [\w*(]"),
        (1, r"^[ \t]*(?:if|while|class|except) [^{};]+:[ \t]*(?:#.*)?$"),
        (1, r"^import \w+(?:\.\w+)*(?: as \w+)?(?:, *\w+)*[ \t]*$"),
        (1, r"^[ \t]*print\([^;{}]*\)[ \t]*(?:#.*)?$"),
        (1, r"\bself\.\w|\bNone\b|\blambda \w+:|\[[^\[\]\n]+ for \w+ in "),
    ),
    "javascript": (
        (2, r"\bconsole\.log\(|\bdocument\.\w+\(|\bmodule\.exports\b|\brequire\(['\"]|==="),
        (2, r"^[ \t]*(?:const (?:\w+|\{[^}\n]*\}|\[[^\]\n]*\]) *= |(?:let|var) \w+ *= .*;[ \t]*$)"),
        (2, r"^[ \t]*(?:export )?(?:default )?(?:async )?function\*? *\w*\([\w\s,={}\[\].'\"]*\) *\{"),
        (1, r"=> *[\{(\w]|\b(?:let|var) \w+ *= "),
    ),
    "typescript": (
        (3, r"^[ \t]*(?:export )?(?:interface|type) \w+(?:<[^>\n]+>)? *(?:=|extends [\w, ]+\{|\{)[ \t]*$"),
        (3, r"\w+\??: *(?:string|number|boolean|any|void|unknown)\b(?:\[\])?[,;)={ \n]"),
        (1, r"\b(?:const|let|var) \w+ *: *[\w<>\[\]| {},]+ *= "),
    ),
    "java": (
        (2, r"\bSystem\.out\.print|^import (?:static )?javax?\.|\bpublic static void main *\( *String\b"),
        (2, r"\b(?:public|private|protected) (?:static |final |abstract )*[\w<>\[\]]+ [a-z]\w* *\("),
        (1, r"^[ \t]*(?:public )?(?:abstract |final )?class \w+(?: extends \w+)?(?: implements [\w, ]+)? *\{"),
        (1, r"\bnew (?:ArrayList|HashMap|Scanner|HashSet|LinkedList)\b|\bString\[\]|\bString \w+ *[=;,)]|\bboolean \w"),
    ),
    "c": (
        (2, r"^[ \t]*#include *<(?:stdio|stdlib|string|math|stdbool|ctype|stdint)\.h>"),
        (1, r"\b(?:printf|scanf|malloc|strlen|free)\("),
        (1, r"^(?:static )?(?:int|void|char|float|double|long|struct \w+) *\*? ?\w+\([\w\s,*\[\]]*\)\s*\{"),
    ),
    "cpp": (
        (3, r"^[ \t]*#include *<(?:iostream|vector|string|map|algorithm|unordered_map|set|queue|bits/stdc\+\+\.h|memory)>"),
        (3, r"\bstd::|\busing namespace std\b|\bcout *<<|\bcin *>>|\btemplate *<"),
    ),
    "csharp": (
        (
            3,
            r"^using System\b|\bConsole\.(?:Write|Read)|^namespace [\w.]+|\bstatic void Main\(|\{ *get; *(?:private )?set; *\}",
        ),
        (2, r"\b(?:public|private|static) (?:static |const |readonly )*(?:string|bool|decimal)(?:\[\])? \w"),
        (2, r"\bforeach *\((?:var|\w+) \w+ in "),
        (1, r"\b(?:public|private|protected) (?:static |override |virtual )*[\w<>\[\]]+ [A-Z]\w* *[({\n]|\(string \w"),
    ),
    "go": (
        (2, r"^package \w+[ \t]*$|\bfmt\.(?:Print|Sprint|Errorf)"),
        (2, r"^func (?:\(\w+ \*?\w+\) )?\w+\([^)\n:]*\)[^{\n>]*\{"),
        (1, r"\w+ := "),
    ),
    "rust": (
        (2, r"^[ \t]*(?:pub(?:\(\w+\))? )?(?:async )?fn \w+(?:<[^>\n]*>)?\("),
        (2, r"\blet mut \w|\bprintln!\(|\bvec!\[|^use (?:std|crate)::|\bimpl(?:<[^>\n]*>)? \w+(?: for \w+)? *\{"),
    ),
    "kotlin": (
        (2, r"^[ \t]*(?:override |private |suspend |inline )*fun (?:<\w+> )?(?:\w+\.)?\w+\("),
        (1, r"\b(?:val|var) \w+(?: *: *\w+)? *= |\bprintln\("),
    ),
    "swift": (
        (2, r"^[ \t]*(?:public |private |static |mutating )*func \w+(?:<[^>\n]*>)?\((?:\w+ )?\w*:?[^)\n]*\)[^{\n]*\{"),
        (2, r"^import (?:Foundation|UIKit|SwiftUI)\b|\bguard let \w|\bif let \w+ *=|\.\.<"),
        (1, r"^[ \t]*(?:let|var) \w+ *(?:: *[\w\[\]]+ *)?= [^;\n]*$"),
        (1, r"\bfor \w+ in [^:\n]+\{|-> *\[?\w+\]?\?? *\{|\bprint\(\"[^\"\n]*\\\("),
    ),
    "scala": (
        (2, r"^[ \t]*def \w+(?:\[[^\]\n]*\])?(?:\([^)\n]*\))*(?: *: *[\w\[\], ]+)? *= *\{?"),
        (2, r"^[ \t]*(?:case class|object|trait) \w+"),
        (1, r"\bval \w+(?: *: *[\w\[\]]+)? *= "),
    ),
    "ruby": (
        (2, r"^[ \t]*def \w+[?!]?(?:\([^)\n]*\)|(?: \w+(?:, *\w+)*))?[ \t]*$"),
        (2, r"\bdo \|\w+(?:, *\w+)*\||\.each *\{ *\||^[ \t]*attr_(?:accessor|reader)\b"),
        (1, r"^[ \t]*(?:puts|require|elsif|unless) ?\b"),
        (1, r"^[ \t]*end[ \t]*$"),
    ),
    "php": ((5, r"<\?php"), (1, r"\$\w+ *= |\becho "), (2, r"\$\w+->\w|\bfunction \w+\([^)\n]*\$\w")),
    "perl": ((2, r"^use (?:strict|warnings)\b|\bmy [\$@%]\w|\bmy \(\$"), (2, r"^sub \w+ *\{"), (1, r"@_\b|\$_\b|=~ ")),
    "lua": (
        (2, r"^[ \t]*local (?:function )?\w+(?:, *\w+)* *[=(]|\bfor \w+(?:, *\w+)? in i?pairs\("),
        (1, r"^[ \t]*function [\w.:]+\([^)\n]*\)[ \t]*$|\bthen[ \t]*$"),
        (1, r"^[ \t]*end[ \t]*$"),
    ),
    "julia": (
        (2, r"^[ \t]*function \w+\([^)\n]*(?:::\w+[^)\n]*)\)|^using \w+[ \t]*$|::(?:Int|Float64|String|Vector)\b"),
        (1, r"^[ \t]*function \w+\([^)\n]*\)[ \t]*$"),
        (1, r"\bprintln\(|^[ \t]*end[ \t]*$"),
    ),
    "r": ((2, r"\b\w+ *<- *(?:function *\(|c\(|\d|\w)"), (1, r"^library\(\w+\)|\bdata\.frame\(")),
    "haskell": (
        (3, r"^\w+'? :: [\w\[\](), ]+(?:->|=>) *[\w\[\](), >-]+$"),
        (2, r"^main :: IO|^import qualified |^module \w+(?: \([^)]*\))? where|^import Data\."),
    ),
    "bash": (
        (5, r"\A\s*#!.*\b(?:ba|z)?sh\b"),
        (2, r"^[ \t]*(?:if|while) \[\[? .+ \]\]?; *(?:then|do)|^[ \t]*(?:fi|done|esac)[ \t]*$"),
        (1, r"^[ \t]*echo |\$\(\w+ |^[ \t]*(?:grep|find|sed|awk|chmod|mkdir|curl) "),
    ),
    "sql": (
        (2, r"\bSELECT\b[\s\S]{1,400}?\bFROM\b|^[ \t]*select [\w*].{0,200}\s+from [\w(`]"),
        (2, r"(?i)^[ \t]*(?:insert into|delete from|create (?:table|view|index|procedure)|alter table|update \w+\s+set) \S"),
    ),
    "html": (
        (6, r"(?i)<!doctype html|<html\b"),
        (3, r"(?i)<(?:head|body|div|form|table|ul|ol|select|p|a|input|button|h[1-6])\b[^>\n]*>"),
    ),
    "css": ((2, r"^[ \t]*[.#]?[\w-]+(?:[ ,>:.#]+[\w-]+)* *\{[ \t]*\n?[ \t]*[a-z-]+ *: *[^;{}\n]+;"),),
}
_COMPILED = {
    language: tuple((weight, re.compile(pattern, re.MULTILINE)) for weight, pattern in weighted)
    for language, weighted in _PATTERNS.items()
}


def fenced_blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yield (label, code) of each fenced code block; an unclosed block extends to the end of the text."""
    return ((match["name"], match["code"]) for match in _FENCE.finditer(text))


def has_code(text: str) -> bool:
    """Return whether a text contains code: in a fenced block, between backticks, or recognizable by its syntax."""
    return _CODE.search(text) is not None or detect_by_syntax(text) is not None


def detect_language(text: str) -> str | None:
    """Return the language of the first fenced block with a known language; without blocks, that of the text; else None."""
    blocks = list(fenced_blocks(text))
    if not blocks:
        return detect_by_syntax(text)
    found = (parse_language_name(name) if name else detect_by_syntax(code) for name, code in blocks)
    return next((language for language in found if language), None)


def detect_by_syntax(code: str) -> str | None:
    """Return the language with the largest total weight of matching patterns; None if below MIN_WEIGHT or tied."""
    start = code[:MAX_SCANNED_CHARS]
    weights = {
        language: sum(weight for weight, pattern in weighted if pattern.search(start))
        for language, weighted in _COMPILED.items()
    }
    largest = max(weights.values())
    leaders = [language for language, weight in weights.items() if weight == largest]
    return leaders[0] if largest >= MIN_WEIGHT and len(leaders) == 1 else None
