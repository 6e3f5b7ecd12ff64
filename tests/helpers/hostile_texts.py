"""Strings that try to inject markup, run scripts, load resources or hide; pages must show them as plain text."""

HOSTILE = [
    "<script>window.hacked = 1; alert(1)</script>",
    "</pre></details></script><script>window.hacked = 2</script>",
    "<img src=x onerror='window.hacked=3'><img src='http://192.0.2.1/x.png'>",
    "\"><svg onload=window.hacked=4> ' onmouseover='window.hacked=5' x='",
    "<style>*{display:none}</style><link rel=stylesheet href='http://192.0.2.1/x.css'>",
    "<!-- --!> <![CDATA[ ]]> <plaintext> <textarea> <title>",
    "&lt;b&gt; &amp;lt; &#60;script&#62; javascript:alert(1)",
    "\0\x01\x1b[31mred\x1b[0m\x7f\x85\r\n\u2028\u202eevil\u2066\ufeff\ufffe",
    "lone \ud800 and \udfff surrogates",
    "<base href='http://192.0.2.1/'><meta http-equiv=refresh content='0;url=http://192.0.2.1/'>",
    "a" * 400_000,
    "\n" * 5000 + "\t\U0001f600\u0301" * 50,
    "{{7*7}} ${7*7} `${window.hacked=6}` %s",
]
