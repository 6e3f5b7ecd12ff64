"""Which programming language a piece of code is in, by a few signs of each language's syntax.

It is made for counting and for catching an answer in the wrong language: where the signs are light, or two languages show as
many of them, it says nothing.
"""

import re

LOOKED_AT = 2000  # characters from the start: signs come early, and texts may be long
NEEDED = 2  # what the signs of a language must weigh together

# Signs of each language: what one weighs, and its pattern ("^" and "$" are of a line).
_SIGNS: dict[str, tuple[tuple[int, str], ...]] = {
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
    language: tuple((weight, re.compile(pattern, re.MULTILINE)) for weight, pattern in signs)
    for language, signs in _SIGNS.items()
}


def by_syntax(code: str) -> str | None:
    """The one language whose signs weigh most in `code`; None where they are too light or two languages tie."""
    start = code[:LOOKED_AT]
    weights = {language: sum(weight for weight, sign in signs if sign.search(start)) for language, signs in _COMPILED.items()}
    most = max(weights.values())
    leaders = [language for language, weight in weights.items() if weight == most]
    return leaders[0] if most >= NEEDED and len(leaders) == 1 else None
