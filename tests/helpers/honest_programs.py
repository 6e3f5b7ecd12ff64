# ruff: noqa: E501
"""Unusual but honest programs, all of which must pass; those with an entry point run in two processes."""

import importlib.util

# name -> (candidate, test)
CALLED = {
    "prints a lot": ("def f():\n  print('x' * 10**6)\n  return 1", "assert f() == 1"),
    "prints to stderr": ("import sys\ndef f():\n  sys.stderr.write('x' * 10**5)\n  return 1", "assert f() == 1"),
    "threads": (
        "import threading\ndef f():\n  out = []\n  ts = [threading.Thread(target=out.append, args=(i,)) for i in range(8)]\n"
        "  for t in ts: t.start()\n  for t in ts: t.join()\n  return sorted(out)",
        "assert f() == list(range(8))",
    ),
    "thread pool": (
        "from concurrent.futures import ThreadPoolExecutor\ndef f():\n  with ThreadPoolExecutor(4) as p: return list(p.map(abs, [-1, 2]))",
        "assert f() == [1, 2]",
    ),
    "asyncio": ("import asyncio\nasync def g():\n  await asyncio.sleep(0.01)\n  return 3\ndef f(): return asyncio.run(g())", "assert f() == 3"),
    "subprocess": ("import subprocess\ndef f(): return subprocess.run(['echo', 'a'], capture_output=True, text=True).stdout", "assert f() == 'a\\n'"),
    "fork and wait": ("import os\ndef f():\n  pid = os.fork()\n  if pid == 0: os._exit(7)\n  return os.waitpid(pid, 0)[1] >> 8", "assert f() == 7"),
    "recursion 900": ("def f(n): return n and 1 + f(n - 1)", "assert f(900) == 900"),
    "setrecursionlimit": ("import sys\nsys.setrecursionlimit(10000)\ndef f(n): return n and 1 + f(n - 1)", "assert f(5000) == 5000"),
    "unicode": ("def f(s): return s[::-1] + 'žluťoučký \U0001f40e'", "assert f('ňa') == 'aňžluťoučký \U0001f40e'"),
    "lone surrogate": ("def f(): return '\\ud800'", "assert f() == '\\ud800'"),
    "big ints": ("def f(n): return 7 ** n", "assert f(20000) == 7 ** 20000 and -f(300) < 0"),
    "absent stdin": ("def f():\n  try: return input()\n  except EOFError: return 'none'", "assert f() == 'none'"),
    "stdin at the top": ("import sys\nlines = sys.stdin.readlines()\ndef f(): return lines", "assert f() == []"),
    "tempfile": ("import tempfile\ndef f():\n  with tempfile.NamedTemporaryFile('w+') as t:\n    t.write('x'); t.seek(0)\n    return t.read()", "assert f() == 'x'"),
    "temporary folder": ("import os, tempfile\ndef f():\n  with tempfile.TemporaryDirectory() as d:\n    open(d + '/a', 'w').write('x')\n    return os.listdir(d)", "assert f() == ['a']"),
    "relative file": ("def f():\n  open('data.txt', 'w').write('1\\n2')\n  return open('data.txt').readlines()", "assert f() == ['1\\n', '2']"),
    "sqlite": ("import sqlite3\ndef f():\n  db = sqlite3.connect('x.db')\n  db.execute('create table t (a)')\n  db.execute('insert into t values (5)')\n  return db.execute('select a from t').fetchall()", "assert f() == [(5,)]"),
    "warnings": ("import warnings\ndef f():\n  warnings.warn('old')\n  return 1", "assert f() == 1"),
    "500 MB": ("def f(): return len(bytearray(500 << 20))", "assert f() == 500 << 20"),
    "changes its argument": ("def f(x):\n  x.sort()\n  x.append(9)", "x = [3, 1]\nassert f(x) is None and x == [1, 3, 9]"),
    "returns its argument": ("def f(x):\n  x[0][0] = 5\n  return x", "x = [[1], [2]]\ny = f(x)\nassert y is x and x == [[5], [2]]"),
    "changes a dict and a set": ("def f(d, s):\n  d['k'] = d.pop('a'); s.discard(1); s.add(2)", "d, s = {'a': 1}, {1}\nf(d, s)\nassert d == {'k': 1} and s == {2}"),
    "shared rows": ("def f(g): g[0][0] = 7", "g = [[0] * 2] * 2\nf(g)\nassert g == [[7, 0], [7, 0]]"),
    "cycle": ("def f(x):\n  x.append(x)\n  return x", "x = []\nassert f(x)[0] is x"),
    "generator": ("def f(n):\n  for i in range(n): yield i", "assert list(f(3)) == [0, 1, 2]\ng = f(2)\nassert next(g) == 0"),
    "infinite generator": ("import itertools\ndef f(): return itertools.count(5)", "import itertools\nassert list(itertools.islice(f(), 3)) == [5, 6, 7]"),
    "map and zip": ("def f(x): return zip(map(str, x), x)", "assert list(f([1, 2])) == [('1', 1), ('2', 2)]"),
    "iterates and catches": ("def f(): return iter([1])", "i = f()\nassert next(i) == 1\ntry: next(i)\nexcept StopIteration: pass\nelse: assert False"),
    "class": ("class f:\n  def __init__(self, v): self.v = v\n  def get(self): return self.v\n  def __len__(self): return 3", "o = f(4)\nassert o.get() == 4 and o.v == 4 and len(o) == 3\no.v = 5\nassert o.get() == 5"),
    "function that returns one": ("def f(n): return lambda x: x + n", "assert f(2)(3) == 5"),
    "takes a function": ("def f(g, xs): return [g(x) for x in xs]", "assert f(lambda x: x * 2, [1, 2]) == [2, 4] and f(str, [1]) == ['1']"),
    "takes a key": ("def f(xs, key): return sorted(xs, key=key)", "assert f(['bb', 'a'], key=len) == ['a', 'bb']"),
    "keyword arguments": ("def f(a, *rest, b=2, **more): return a, rest, b, more", "assert f(1, 2, b=3, c=4) == (1, (2,), 3, {'c': 4})"),
    "state between calls": ("n = 0\ndef f():\n  global n\n  n += 1\n  return n", "assert [f(), f(), f()] == [1, 2, 3]"),
    "default argument": ("def f(x, seen=[]):\n  seen.append(x)\n  return seen", "f(1)\nassert f(2) == [1, 2]"),
    "raises": ("def f(x):\n  if x < 0: raise ValueError('negative')\n  return x", "try: f(-1)\nexcept ValueError as e: assert str(e) == 'negative'\nelse: assert False"),
    "raises KeyError": ("def f(): return {}['a']", "try: f()\nexcept KeyError as e: assert e.args == ('a',)\nelse: assert False"),
    "raises its own": ("class E(ValueError): pass\ndef f(): raise E('x')", "try: f()\nexcept ValueError as e: assert str(e) == 'x' and type(e).__name__ == 'E'\nelse: assert False"),
    "asserts": ("def f(x):\n  assert x, 'need x'\n  return x", "try: f(0)\nexcept AssertionError as e: assert str(e) == 'need x'\nassert f(1) == 1"),
    "containers": ("import collections\ndef f(s): return collections.Counter(s), collections.OrderedDict(b=1, a=2), collections.deque([1], 3), collections.defaultdict(list, a=[1])",
                   "c, o, d, e = f('aab')\nassert c == {'a': 2, 'b': 1} and c.most_common(1) == [('a', 2)] and list(o) == ['b', 'a'] and d.maxlen == 3\ne['z'].append(1)\nassert e == {'a': [1], 'z': [1]}"),
    "named tuple": ("import collections\nP = collections.namedtuple('P', 'x y')\ndef f(): return P(1, 2)", "p = f()\nassert p == (1, 2) and p.x == 1 and isinstance(p, tuple)"),
    "dataclass": ("import dataclasses\n@dataclasses.dataclass\nclass P:\n  x: int = 1\ndef f(): return P()", "assert f().x == 1"),
    "number types": ("import decimal, fractions\ndef f(): return decimal.Decimal('0.1'), fractions.Fraction(1, 3), 1 + 2j", "import decimal, fractions\nassert f() == (decimal.Decimal('0.1'), fractions.Fraction(1, 3), 1 + 2j)"),
    "nan and infinity": ("def f(): return [float('nan'), float('inf'), -0.0]", "import math\nx = f()\nassert math.isnan(x[0]) and x[1] == math.inf and math.copysign(1, x[2]) == -1"),
    "dates": ("import datetime\ndef f(d): return d + datetime.timedelta(days=1), datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)",
              "import datetime\na, b = f(datetime.date(2020, 2, 28))\nassert a == datetime.date(2020, 2, 29) and b.year == 2020 and b.tzinfo"),
    "int subclass": ("import enum\nclass C(enum.IntEnum):\n  A = 3\ndef f(): return C.A", "assert f() == 3 and isinstance(f(), int)"),
    "bool is not 1": ("def f(): return True", "assert f() is True"),
    "range and views": ("def f(): return range(3), {1: 2}.keys(), {1: 2}.items()", "r, k, i = f()\nassert r == range(3) and k == {1} and list(i) == [(1, 2)]"),
    "bytes": ("def f(b): return bytes(b) + b'\\x00', bytearray(b)", "assert f(b'a') == (b'a\\x00', bytearray(b'a'))"),
    "nested 100": ("def f():\n  x = 1\n  for _ in range(100): x = [x]\n  return x", "x = f()\nfor _ in range(100): x = x[0]\nassert x == 1"),
    "long list": ("def f(x): return [v + 1 for v in x]", "assert f(list(range(200000)))[-1] == 200000"),
    "a decorated function": ("import functools\n@functools.lru_cache(None)\ndef f(n): return n if n < 2 else f(n - 1) + f(n - 2)", "assert f(80) == 23416728348467685"),
    "name is main": ("ran = False\nif __name__ == '__main__': ran = True\ndef f(): return ran", "assert f() is False"),
    "future import": ("from __future__ import annotations\nfrom typing import List\ndef f(x: List[Undefined]) -> int: return 1", "assert f([]) == 1"),
    "shadows a builtin": ("def sum(x): return 5\ndef f(): return sum([1])", "assert f() == 5 and sum([1, 2]) == 3"),
    "slow to start": ("import time\ntime.sleep(1.0)\ndef f(): return 1", "assert f() == 1"),
    "reads proc": ("def f(): return 'MemTotal' in open('/proc/meminfo').read() and bool(open('/proc/self/status').read())", "assert f()"),
    "random": ("import random\ndef f():\n  random.seed(1)\n  return random.random()", "import random\nassert f() == random.Random(1).random()"),
    "leaves a thread": ("import threading, time\nthreading.Thread(target=time.sleep, args=(30,), daemon=True).start()\ndef f(): return 1", "assert f() == 1"),
    "handles a signal": ("import os, signal\nhit = []\nsignal.signal(signal.SIGUSR1, lambda *a: hit.append(1))\ndef f():\n  os.kill(os.getpid(), signal.SIGUSR1)\n  return hit", "assert f() == [1]"),
    "own alarm": ("import signal, time\nclass T(Exception): pass\ndef g(*a): raise T\nsignal.signal(signal.SIGALRM, g)\ndef f():\n  signal.setitimer(signal.ITIMER_REAL, 0.05)\n  try: time.sleep(5)\n  except T: return 'late'", "assert f() == 'late'"),
    "exits itself, caught": ("def f():\n  try: raise SystemExit(3)\n  except SystemExit as e: return e.code", "assert f() == 3"),
}  # fmt: skip
LIBRARIES = {
    "numpy": ("import numpy as np\ndef f(x): return np.array(x).mean(), np.arange(3), np.int64(3)", "import numpy as np\nm, a, i = f([1, 2])\nassert m == 1.5 and (a == [0, 1, 2]).all() and i == 3 and isinstance(i, np.int64)"),
    "numpy argument": ("def f(a): return (a * 2).tolist()", "import numpy as np\nassert f(np.array([1, 2])) == [2, 4]"),
    "pandas": ("import pandas as pd\ndef f(): return pd.DataFrame({'a': [1, 2]})['a'].sum()", "assert f() == 3"),
    "matplotlib": ("import matplotlib.pyplot as plt\ndef f():\n  plt.plot([1, 2])\n  plt.savefig('x.png')\n  return len(plt.gca().lines)", "assert f() == 1"),
}  # fmt: skip
WHOLE = {  # programs that run in one interpreter with the test
    "whole": ("x = 1", "assert x == 1"),
    "whole, a test's class": ("def f(node): return node.value", "class Node:\n  value = 3\nassert f(Node()) == 3"),
    "whole, 20 MB": ("#" * 20_000_000, "assert True"),
}
OWN_PROCESSES_AND_FILES = {  # programs that need processes and files, which the Landlock tier does not allow
    "multiprocessing": ("import multiprocessing\nc = multiprocessing.get_context('fork')\ndef f():\n  q = c.Queue()\n  p = c.Process(target=q.put, args=(5,))\n  p.start()\n  found = q.get()\n  p.join()\n  return found", "assert f() == 5"),
    "a file in /tmp": ("def f():\n  open('/tmp/x', 'w').write('1')\n  return open('/tmp/x').read()", "assert f() == '1'"),
    "loopback": ("import socket\ndef f():\n  s = socket.create_server(('127.0.0.1', 0))\n  c = socket.create_connection(s.getsockname())\n  c.send(b'x')\n  return s.accept()[0].recv(1)", "assert f() == b'x'"),
}  # fmt: skip


def honest_programs(tier):
    """Return name -> fields of a Program."""
    chosen = dict(CALLED)
    if tier == "bubblewrap":
        chosen |= OWN_PROCESSES_AND_FILES
    for name, pair in LIBRARIES.items():
        if importlib.util.find_spec(name.split()[0]):
            chosen[name] = pair
    called = {name: {"candidate": candidate, "test": test, "entry_point": "f"} for name, (candidate, test) in chosen.items()}
    return called | {name: {"candidate": candidate, "test": test} for name, (candidate, test) in WHOLE.items()}
