import json

import pytest

from tests.helpers.shared_data import shared
from wizardcoder_jax.core.record_files import read_records
from wizardcoder_jax.evol_instruct.language_detection import detect_language, fenced_blocks, has_code
from wizardcoder_jax.evol_instruct.languages import ALIASES, LANGUAGE_NAMES, SUFFIXES, parse_language_name

pytestmark = pytest.mark.quick

CODE = {
    "python": "def add(a, b):\n    return a + b\n",
    "javascript": "function add(a, b) {\n  return a + b;\n}\n",
    "typescript": "function add(a: number, b: number): number {\n  return a + b;\n}\n",
    "java": "public class Main {\n  public static int add(int a, int b) {\n    return a + b;\n  }\n}\n",
    "c": '#include <stdio.h>\nint main(void) {\n  printf("%d", 1);\n  return 0;\n}\n',
    "cpp": '#include <iostream>\nint main() {\n  std::cout << "hi";\n}\n',
    "csharp": 'using System;\nclass P {\n  static void Main() { Console.WriteLine("hi"); }\n}\n',
    "go": 'package main\nimport "fmt"\nfunc main() {\n\tfmt.Println("hi")\n}\n',
    "rust": 'fn main() {\n    let mut x = 1;\n    println!("{}", x);\n}\n',
    "kotlin": "fun add(a: Int, b: Int): Int {\n    val c = a + b\n    return c\n}\n",
    "swift": "func add(_ a: Int, _ b: Int) -> Int {\n    return a + b\n}\n",
    "scala": "object Main {\n  def add(a: Int, b: Int): Int = a + b\n}\n",
    "ruby": "def add(a, b)\n  a + b\nend\nputs add(1, 2)\n",
    "php": "<?php\nfunction add($a, $b) {\n  return $a + $b;\n}\n",
    "perl": "use strict;\nmy $x = 1;\nsub add {\n  my ($a, $b) = @_;\n  return $a + $b;\n}\n",
    "lua": "local function add(a, b)\n  return a + b\nend\n",
    "julia": "function add(a::Int, b::Int)\n    return a + b\nend\n",
    "r": "add <- function(a, b) {\n  a + b\n}\n",
    "haskell": "add :: Int -> Int -> Int\nadd a b = a + b\n",
    "bash": "#!/bin/bash\nfor f in *.txt; do\n  echo $f\ndone\n",
    "sql": "SELECT name FROM users WHERE age > 3;\n",
    "html": "<!DOCTYPE html>\n<html><body><p>Hi</p></body></html>\n",
    "css": "p {\n  color: red;\n}\n",
}


def test_there_is_an_example_of_every_language():
    assert CODE.keys() == LANGUAGE_NAMES.keys()
    assert set(ALIASES.values()) | set(SUFFIXES.values()) <= LANGUAGE_NAMES.keys()


@pytest.mark.parametrize("language", LANGUAGE_NAMES)
def test_code_is_recognized_by_its_syntax_with_or_without_a_fence(language):
    assert detect_language(CODE[language]) == language
    assert detect_language(f"Here it is:\n\n```\n{CODE[language]}```\nDone.") == language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("```JS\nx\n```", "javascript"),
        ("```c++\nx\n```", "cpp"),
        ("~~~python\nx\n~~~", "python"),
        ("```{.rust}\nx\n```", "rust"),
        ('```python title="a.py"\nx\n```', "python"),
        ("  ```go\n  x\n  ```", "go"),
        ("````ruby\n```\nnot the end\n```\n````", "ruby"),
        ("```python\nnever closed", "python"),
        ("```text\noutput\n```\n```sql\nselect 1\n```", "sql"),
        ("```json\n{}\n```", None),
        ("```\n```", None),
        ("Use the add function from the list.", None),
        ("We can select unique elements from a list in words.", None),
        ("", None),
    ],
)
def test_the_label_of_a_fence_decides_the_language(text, language):
    assert detect_language(text) == language


@pytest.mark.parametrize(("name", "language"), [("Python", "python"), (" C# ", "csharp"), ("golang", "go"), ("en", None)])
def test_languages_have_aliases(name, language):
    assert parse_language_name(name) == language


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Explain what the function does.", False),
        ("Say it again, in fewer words: why is recursion slow?", False),
        ("What does `x` hold?", True),
        ("Explain x = 3", True),
        ("Explain\nfor (;;) {", True),
        *((code, True) for code in CODE.values()),
    ],
)
def test_code_is_found_in_a_text(text, expected):
    assert has_code(text) is expected


def test_fence_labels_of_real_answers_agree_with_their_syntax():
    """The labels of gpt-3.5's fences are mostly confirmed by the syntax of the code, and rarely contradicted."""
    labeled = confirmed = contradicted = 0
    for _, entry in read_records(shared("evol/evol_round1_of_2k.json")):
        for name, code in fenced_blocks(entry["output"]):
            named, seen = parse_language_name(name), detect_language(code)
            labeled += named is not None
            confirmed += named is not None and seen == named
            contradicted += named is not None and seen not in (None, named)
    assert labeled > 1000
    assert confirmed > 0.75 * labeled and contradicted < 0.02 * labeled


@pytest.mark.parametrize(("name", "language"), [("js", "javascript"), ("java", "java"), ("cpp", "cpp"), ("sh", "bash")])
def test_the_language_of_multipl_e_problems_is_detected(name, language):
    with open(shared(f"multipl-e/humaneval-{name}.jsonl"), encoding="utf-8") as file:
        prompts = [json.loads(line)["prompt"] for line in file]
    assert {detect_language(prompt) for prompt in prompts} == {language}
